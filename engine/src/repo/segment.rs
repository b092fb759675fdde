//! One index run, opened: its payload, mapped from the cache or held in memory, and what was derived from it: its
//! chunks in the order in which they lie in packs. Rows are proven when they are looked at (`checked`), or all of
//! them before the whole run is handed out. Which segment has an id is not known here; see `tier`.
//!
//! In the cache a file has one run (`NAME.run`) or many (`….runs`): `(payload ‖ order: N × (row u32 ‖ last 4 bytes
//! of its id) ‖ first: for each frame the u32 number in `order` of its first chunk)*`; its table says `(name [32] ‖
//! start u64 ‖ payload length u64)*`.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use crate::error::Error;
use crate::format::id::{ChunkId, ObjectHash};
use crate::format::index::{Columns, Location, PackRow, Run, RunFrame};
use crate::format::pack::BaseRow;
use crate::repo::checked::{Checked, FileKind, Writing};

const KIND: &FileKind = b"strongroom runs1";
const TABLE_ROW: usize = 32 + 8 + 8;
const ORDER_ROW: usize = 8;
const FIRST_ROW: usize = 4;
/// So many chunks behind the last one are looked at; their rows are one or two cache lines.
const NEAR: u32 = 8;
/// A run without chunks.
const NOTHING: [u8; 72] = [0; 72];

const SOUND: u8 = 1;
const RELIED: u8 = 2;

#[derive(Debug)]
pub struct Segment {
    /// Of the run in the store; none for what was put together here.
    pub name: Option<ObjectHash>,
    file: Arc<Checked>,
    /// Of the payload in the file.
    start: usize,
    columns: Columns,
    /// Every row is proven.
    whole: AtomicBool,
    /// What may be done with each pack of the run.
    packs: Vec<AtomicU8>,
}

impl Segment {
    /// Keeps a validated payload in memory.
    pub fn hold(mut payload: Vec<u8>) -> Self {
        let len = payload.len();
        let derived = derive(&Run::new(&payload).expect("validated by the caller"));
        payload.extend_from_slice(&derived);
        let file = Arc::new(Checked::hold(payload));
        Self::of(&file, None, 0, len).expect("validated by the caller")
    }

    /// Writes a validated payload to a file of its own.
    pub fn cache(path: &Path, name: &ObjectHash, payload: &[u8]) -> io::Result<Self> {
        let mut file = Writing::create(path)?;
        let run = Run::new(payload).expect("validated by the caller");
        file.write(payload)?;
        file.write(&derive(&run))?;
        let file = Arc::new(file.finish(&table_row(name, 0, payload.len()), KIND, false)?);
        Self::of(&file, Some(*name), 0, payload.len())
            .ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// Puts runs that have files of their own into one.
    pub fn bundle(path: &Path, segments: &[Arc<Segment>]) -> io::Result<Vec<Self>> {
        let broken = || io::Error::from(io::ErrorKind::InvalidData);
        let mut file = Writing::create(path)?;
        let (mut table, mut starts) = (Vec::new(), Vec::new());
        for segment in segments {
            let name = segment.name.as_ref().ok_or_else(broken)?;
            starts.push(file.len());
            table.extend(table_row(name, file.len(), segment.columns.payload_len()));
            file.write(segment.file.get(segment.extent()).ok_or_else(broken)?)?;
        }
        let file = Arc::new(file.finish(&table, KIND, true)?);
        let moved = segments.iter().zip(starts).map(|(segment, start)| {
            let packs =
                segment.packs.iter().map(|pack| AtomicU8::new(pack.load(Ordering::Relaxed)));
            Self {
                name: segment.name,
                file: file.clone(),
                start,
                columns: segment.columns,
                whole: AtomicBool::new(false),
                packs: packs.collect(),
            }
        });
        Ok(moved.collect())
    }

    /// Opens a cached file, without looking at its runs.
    pub fn open_file(path: &Path) -> io::Result<Arc<Checked>> {
        Checked::open(path, KIND).map(Arc::new)
    }

    /// Names, starts and lengths of the runs in a file.
    pub fn runs_in(file: &Checked) -> impl Iterator<Item = (ObjectHash, usize, usize)> {
        let number = |row: &[u8]| u64::from_le_bytes(row.try_into().expect("eight bytes")) as usize;
        file.table().as_chunks::<TABLE_ROW>().0.iter().map(move |row| {
            let name = ObjectHash(row[..32].try_into().expect("32 bytes"));
            (name, number(&row[32..40]), number(&row[40..]))
        })
    }

    /// One run of a file. `None`: what of it is looked at here is broken.
    pub fn of(
        file: &Arc<Checked>,
        name: Option<ObjectHash>,
        start: usize,
        payload_len: usize,
    ) -> Option<Self> {
        let end = start.checked_add(payload_len)?;
        let head = file.get(start..start.checked_add(Columns::HEADER_LEN)?)?;
        let columns = Columns::read(head, payload_len as u64).ok()?;
        let derived =
            columns.chunk_count() as usize * ORDER_ROW + columns.frame_count() as usize * FIRST_ROW;
        let rows = columns.packs();
        if end.checked_add(derived)? > file.len()
            || !file.prove(start + rows.start..start + rows.end)
        {
            return None;
        }
        let packs = (0..columns.pack_count()).map(|_| AtomicU8::new(0)).collect();
        let (file, whole) = (file.clone(), AtomicBool::new(false));
        Some(Self { name, file, start, columns, whole, packs })
    }

    pub fn file(&self) -> &Arc<Checked> {
        &self.file
    }

    /// Number of chunks.
    pub fn len(&self) -> u32 {
        self.columns.chunk_count()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The whole run, every byte of it proven. One that is broken says nothing: it is fetched again when the index is
    /// opened the next time.
    pub fn run(&self) -> Run<'_> {
        if self.is_whole() { self.unproven() } else { Run::new(&NOTHING).expect("no rows at all") }
    }

    /// Is every byte of it what was written?
    pub fn is_whole(&self) -> bool {
        if !self.whole.load(Ordering::Relaxed) && self.file.prove(self.extent()) {
            self.whole.store(true, Ordering::Relaxed);
        }
        self.whole.load(Ordering::Relaxed)
    }

    /// The rows of its packs.
    pub fn packs(&self) -> impl Iterator<Item = PackRow> + use<'_> {
        // They are proven when the segment is made.
        self.unproven().packs()
    }

    /// Why a row that was validated is not there any more.
    pub fn cut_short(&self) -> Error {
        let path = self.file.path().map(Path::to_owned).unwrap_or_default();
        Error::Cache { path, source: io::ErrorKind::UnexpectedEof.into() }
    }

    /// Does this row have this id?
    pub fn has(&self, row: u32, id: &ChunkId) -> bool {
        let Some([place, _]) = self.columns.chunk(row) else { return false };
        self.bytes(place).is_some_and(|found| found == id.0)
    }

    /// Of the chunk in this row of the run. `None`: it is broken.
    pub fn location(&self, row: u32) -> Option<Location> {
        let [id, _] = self.columns.chunk(row)?;
        self.bytes(id)?;
        let (_, frame) = self.frame_of(row)?;
        let [table, _] = self.columns.beside(&frame)?;
        self.bytes(table)?;
        self.unproven().location(row)
    }

    /// The frame of the chunk in this row, and its number: what most look-ups are content with. `None`: it is broken.
    #[inline]
    pub fn frame_of(&self, row: u32) -> Option<(u32, RunFrame)> {
        let [_, locator] = self.columns.chunk(row)?;
        let number = Columns::frame_in(self.bytes(locator)?);
        let frame = self.bytes(self.columns.frame(number)?)?;
        Some((number, RunFrame::read(frame.try_into().ok()?)))
    }

    /// A row of its packs.
    pub fn pack(&self, number: u32) -> Option<PackRow> {
        // They are proven when the segment is made.
        self.unproven().pack(number)
    }

    /// What a delta is told by. `None`: it is broken.
    pub fn bases(
        &self,
        frame: &RunFrame,
    ) -> Option<impl ExactSizeIterator<Item = BaseRow> + use<'_>> {
        let [_, bases] = self.columns.beside(frame)?;
        self.bytes(bases)?;
        self.unproven().bases(frame)
    }

    /// The number in pack order of the chunk in this row, which is in this frame.
    pub fn order(&self, row: u32, frame: u32) -> Option<u32> {
        let orders = self.columns.payload_len() + self.len() as usize * ORDER_ROW;
        let at = orders + frame as usize * FIRST_ROW;
        let first = u32::from_le_bytes(self.bytes(at..at + FIRST_ROW)?.try_into().ok()?);
        (first..self.len()).find(|number| {
            let at = self.columns.payload_len() + *number as usize * ORDER_ROW;
            let found = self.bytes(at..at + ORDER_ROW).and_then(|row| row.try_into().ok());
            found.is_none_or(|found| order_row(found).0 == row)
        })
    }

    /// The first of the chunks from this number on, in pack order, that has the id: its number and its row.
    pub fn near(&self, number: u32, id: &ChunkId) -> Option<(u32, u32)> {
        let end = number.saturating_add(NEAR).min(self.len());
        let at = |number: u32| self.columns.payload_len() + number as usize * ORDER_ROW;
        let rows = self.bytes(at(number)..at(end.max(number)))?.as_chunks::<ORDER_ROW>().0;
        let wanted = tail(&id.0);
        (number..).zip(rows).find_map(|(number, row)| {
            let (row, tail) = order_row(row);
            (tail == wanted && self.has(row, id)).then_some((number, row))
        })
    }

    /// The pack is in the store's listing with the stated length.
    pub fn sound(&self, pack: u32) -> bool {
        self.packs[pack as usize].load(Ordering::Relaxed) & SOUND != 0
    }

    /// A new snapshot may rely on the pack.
    pub fn relied(&self, pack: u32) -> bool {
        self.packs[pack as usize].load(Ordering::Relaxed) & RELIED != 0
    }

    pub fn set(&self, pack: u32, sound: bool, relied: bool) {
        let flags = if sound { SOUND } else { 0 } | if relied { RELIED } else { 0 };
        self.packs[pack as usize].store(flags, Ordering::Relaxed);
    }

    /// These bytes behind its start, proven.
    #[inline]
    fn bytes(&self, range: std::ops::Range<usize>) -> Option<&[u8]> {
        self.file.get(self.start + range.start..self.start + range.end)
    }

    fn unproven(&self) -> Run<'_> {
        self.columns.of(&self.file.unproven()[self.start..])
    }

    /// Bytes of it in its file.
    pub fn stored_len(&self) -> usize {
        self.extent().len()
    }

    /// Its bytes in the file: the payload and what was derived from it.
    fn extent(&self) -> std::ops::Range<usize> {
        let derived =
            self.len() as usize * ORDER_ROW + self.columns.frame_count() as usize * FIRST_ROW;
        self.start..self.start + self.columns.payload_len() + derived
    }
}

/// Order and first.
fn derive(run: &Run) -> Vec<u8> {
    let place = |row| run.frame_of(row).expect("validated by the caller");
    let mut order: Vec<(u32, u32, u32)> =
        (0..run.len()).map(|row| (place(row).0, place(row).1, row)).collect();
    order.sort_unstable();
    let mut bytes = Vec::with_capacity(order.len() * (ORDER_ROW + FIRST_ROW));
    for (_, _, row) in &order {
        bytes.extend_from_slice(&row.to_le_bytes());
        bytes.extend_from_slice(&tail(&run.ids()[*row as usize]).to_le_bytes());
    }
    let mut number = 0;
    for of_frame in order.chunk_by(|a, b| a.0 == b.0) {
        bytes.extend_from_slice(&u32::to_le_bytes(number));
        number += of_frame.len() as u32;
    }
    bytes
}

/// Row and end of the id of a chunk in pack order.
fn order_row(row: &[u8; ORDER_ROW]) -> (u32, u32) {
    let row = u64::from_le_bytes(*row);
    (row as u32, (row >> 32) as u32)
}

/// The last four bytes.
fn tail(id: &[u8; 32]) -> u32 {
    u32::from_le_bytes(id[28..].try_into().expect("four bytes"))
}

fn table_row(name: &ObjectHash, start: usize, payload_len: usize) -> Vec<u8> {
    [&name.0[..], &(start as u64).to_le_bytes(), &(payload_len as u64).to_le_bytes()].concat()
}
