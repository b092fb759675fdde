//! Section 7.2: bodies of sessions, seals and snapshots.

use super::cbor::{self, Map};
use super::pack::SealRow;
use super::record::Record;
use super::{Cursor, Id, Result, Short, need};

pub struct Snapshot {
    pub session: Short,
    pub sequence: u64,
    pub previous: Option<Id>,
    pub time: i64,
    pub author: Short,
    pub roots: Vec<Vec<u8>>,
    pub counts: Vec<u64>,
    pub root: (Id, Id),
}

/// Session and epoch of a session record.
pub fn session(record: &Record<'_>) -> Result<(Short, u64)> {
    let mut map = Map::parse("session", record.body)?;
    let announced = (map.array(1)?, map.uint(2)?);
    map.int(3)?;
    map.list(4)?.into_iter().try_for_each(|adopted| cbor::array::<16>(adopted).map(drop))?;
    map.finish()?;
    Ok(announced)
}

pub fn seals(record: &Record<'_>) -> Result<(Short, Vec<SealRow>)> {
    let mut map = Map::parse("seals", record.body)?;
    let session = map.array(1)?;
    let rows = map.list(2)?.into_iter().map(|row| {
        let [recipient, epoch, sealed] = cbor::tuple(row)?;
        let recipient = u8::try_from(cbor::uint(recipient)?).map_err(|_| "recipient")?;
        let epoch = u32::try_from(cbor::uint(epoch)?).map_err(|_| "epoch")?;
        let sealed = cbor::array::<1168>(sealed)?.to_vec();
        Ok(SealRow { recipient, epoch, session, sealed })
    });
    let rows = rows.collect::<Result<_>>()?;
    map.finish()?;
    Ok((session, rows))
}

pub fn snapshot(session: Short, body: &[u8]) -> Result<Snapshot> {
    let mut map = Map::parse("snapshot", body)?;
    let (sequence, previous) = (map.uint(1)?, map.maybe(2, cbor::array)?);
    let time = map.int(3)?;
    map.int(4)?;
    map.maybe(5, cbor::text)?;
    need(map.uint(6)? <= 2, "clock")?;
    let author = map.array(7)?;
    map.text(8)?;
    map.text(9)?;
    let roots = map.list(10)?.into_iter().map(cbor::bytes).collect::<Result<_>>()?;
    let labels = map.take(11)?.into_map().map_err(|_| "labels")?;
    labels
        .into_iter()
        .try_for_each(|(key, value)| cbor::text(key).and_then(|_| cbor::text(value)).map(drop))?;
    map.list(12)?.into_iter().try_for_each(|tag| cbor::text(tag).map(drop))?;
    need((1..=2).contains(&map.uint(13)?), "class of a snapshot")?;
    map.maybe(14, cbor::int)?;
    let mut counts = Map::new("counts", map.take(15)?)?;
    let columns = (1..=11).map(|key| counts.uint(key)).collect::<Result<_>>()?;
    counts.finish()?;
    map.maybe(16, cbor::uint)?;
    let root: [u8; 64] = map.array(17)?;
    let mut ids = Cursor(&root);
    let root = (ids.array()?, ids.array()?);
    map.maybe(18, cbor::array::<16>)?;
    need(map.int(19)? >= time, "the end of a backup is after its beginning")?;
    map.finish()?;
    Ok(Snapshot { session, sequence, previous, time, author, roots, counts: columns, root })
}
