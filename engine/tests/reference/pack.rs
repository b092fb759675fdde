//! Section 5: packs, read through their own trailer and directory; frames and codecs.

use super::seal::{CONTEXT_LEN, Context, Opener, Recipient};
use super::{Cursor, Id, Result, Short, from_hex, h, need, padme};

const HEADER_LEN: u64 = 64;
const TRAILER_LEN: usize = 168;
const FRAME_PLAIN_MAX: u32 = 64 << 20;
const CHUNK_LEN_MAX: u32 = 16 << 20;
const BASES_MAX: usize = 64;
const BASES_LEN_MAX: u64 = 8 << 20;

pub struct Pack<'b> {
    pub bytes: &'b [u8],
    pub session: Short,
    pub epoch: u32,
    pub class: u8,
    pub frames: Vec<Frame>,
    pub seals: Vec<SealRow>,
}

/// What directories and index runs both say of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrameRow {
    pub offset: u64,
    pub ordinal: u64,
    pub stored: u32,
    pub plain: u32,
    pub codec: u8,
    pub context: Context,
    pub commit: Id,
    /// As they stand there, 40 bytes each.
    pub base_rows: Vec<u8>,
    /// H of the chunk rows.
    pub table: Id,
}

pub struct Frame {
    pub row: FrameRow,
    pub chunks: Vec<ChunkRow>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ChunkRow {
    pub id: Id,
    pub offset: u32,
    pub len: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealRow {
    pub recipient: u8,
    pub epoch: u32,
    pub session: Short,
    pub sealed: Vec<u8>,
}

/// Checks everything of a pack but what is in its frames. `secret` checks a context and gives its
/// key.
pub fn parse<'b>(
    name: &str,
    bytes: &'b [u8],
    secret: &dyn Fn(&Context) -> Result<[u8; 32]>,
    pack_size: u64,
) -> Result<Pack<'b>> {
    let id: Id = from_hex(&name["packs/xx/".len()..])?;
    need(h(bytes) == id && name[6..8] == name[9..11], "content name of a pack")?;
    let mut header = Cursor(bytes);
    need(header.take(8)? == b"STRONGRM", "magic")?;
    need(header.u8()? == 6 && header.u8()? == 1, "kind and version of a pack")?;
    header.zero(6)?;
    let (session, epoch) = (header.array()?, header.u32()?);
    let (class, suite) = (header.u8()?, header.u8()?);
    need((1..=4).contains(&class), "class of a pack")?;
    header.zero(26)?;

    let (rest, trailer) =
        bytes.split_at_checked(bytes.len().wrapping_sub(TRAILER_LEN)).ok_or("short")?;
    let mut trailer = Cursor(trailer);
    let context = Context::parse(trailer.array::<CONTEXT_LEN>()?)?;
    let of_pack = (context.recipient, context.epoch, context.session, context.suite);
    need(of_pack == (Recipient::Index, epoch, session, suite), "context of a trailer")?;
    let key = secret(&context)?;
    let opener = Opener::new(&key, &context, b"strongroom/1/pack-trailer", trailer.take(32)?)?;
    let aad = [opener.context_hash().as_slice(), &(bytes.len() as u64).to_le_bytes()].concat();
    let plain = opener.open(&[0; 12], &aad, trailer.0)?;
    let mut trailer = Cursor(&plain);
    let (dir_offset, dir_len, frames_end) = (trailer.u64()?, trailer.u64()?, trailer.u64()?);
    let (frames, chunks) = (trailer.u32()?, trailer.u32()?);
    trailer.zero(16)?;
    trailer.end()?;

    need(dir_offset + dir_len == rest.len() as u64, "the directory ends at the trailer")?;
    need(HEADER_LEN <= frames_end && frames_end <= dir_offset, "frames end before the directory")?;
    let unpadded = frames_end + dir_len + TRAILER_LEN as u64;
    let len = bytes.len() as u64;
    need(len == pack_size || len == padme(unpadded).min(pack_size), "length of a padded pack")?;

    let (commit, stream) =
        rest[dir_offset as usize..].split_at_checked(32).ok_or("short directory")?;
    let opener = Opener::new(&key, &context, b"strongroom/1/pack-directory", commit)?;
    let directory = opener.open_stream(stream)?;
    let (frames, seals) = parse_directory(&directory, frames, chunks)?;
    check_places(&frames, frames_end)?;
    for context in frames.iter().map(|frame| &frame.row.context) {
        let of_context = (context.recipient as u8, context.epoch, context.session);
        let there = |row: &SealRow| (row.recipient, row.epoch, row.session) == of_context;
        need(seals.iter().any(there), "a directory holds the seals of its contexts")?;
    }
    Ok(Pack { bytes, session, epoch, class, frames, seals })
}

fn parse_directory(bytes: &[u8], frames: u32, chunks: u32) -> Result<(Vec<Frame>, Vec<SealRow>)> {
    let mut cursor = Cursor(bytes);
    let [c, s, f, n, b] = [(); 5].map(|()| cursor.u32());
    let (c, s, f, n, b) = (c?, s?, f?, n?, b?);
    cursor.zero(4)?;
    need((f, n) == (frames, chunks), "numbers of frames and chunks")?;
    let contexts = (0..c).map(|_| context_row(&mut cursor)).collect::<Result<Vec<_>>>()?;
    let seals = (0..s).map(|_| seal_row(&mut cursor)).collect::<Result<Vec<_>>>()?;
    let mut rows = Cursor(cursor.take(48 * f as usize)?);
    let mut chunks = Cursor(cursor.take(40 * n as usize)?);
    let mut bases = Cursor(cursor.take(40 * b as usize)?);
    cursor.end()?;
    let frames = (0..f).map(|_| {
        let (offset, ordinal) = (rows.u64()?, rows.u64()?);
        let (stored, plain) = (rows.u32()?, rows.u32()?);
        let (count, base_count, context) = (rows.u32()?, rows.u32()?, rows.u32()?);
        let codec = rows.u8()?;
        rows.zero(11)?;
        need((1..=65_535).contains(&count), "chunks of a frame")?;
        let chunk_rows = chunks.take(40 * count as usize)?;
        let base_rows = bases.take(40 * base_count as usize)?.to_vec();
        let (context, commit) = *contexts.get(context as usize).ok_or("no such context")?;
        let (table, chunks) = (h(chunk_rows), parse_chunks(chunk_rows, plain)?);
        check_bases(&base_rows, codec)?;
        let row =
            FrameRow { offset, ordinal, stored, plain, codec, context, commit, base_rows, table };
        Ok(Frame { row, chunks })
    });
    let frames = frames.collect::<Result<_>>()?;
    chunks.end()?;
    bases.end()?;
    Ok((frames, seals))
}

pub fn context_row(cursor: &mut Cursor<'_>) -> Result<(Context, Id)> {
    Ok((Context::parse(cursor.array()?)?, cursor.array()?))
}

fn seal_row(cursor: &mut Cursor<'_>) -> Result<SealRow> {
    let recipient = cursor.u8()?;
    cursor.zero(3)?;
    let (epoch, session) = (cursor.u32()?, cursor.array()?);
    Ok(SealRow { recipient, epoch, session, sealed: cursor.take(1168)?.to_vec() })
}

/// Codecs 0–2 have none, codec 3 has some.
fn check_bases(rows: &[u8], codec: u8) -> Result<()> {
    let mut cursor = Cursor(rows);
    let mut sum = 0;
    while !cursor.0.is_empty() {
        cursor.take(32)?;
        let (_start, len) = (cursor.u32()?, cursor.u32()?);
        need(len > 0, "an empty base range")?;
        sum += u64::from(len);
    }
    need(rows.len() <= 40 * BASES_MAX && sum <= BASES_LEN_MAX, "bases of a frame")?;
    need(rows.is_empty() == (codec <= 2), "bases and codec")
}

/// In order, without gaps or overlap, covering the frame's plain bytes.
fn parse_chunks(rows: &[u8], plain: u32) -> Result<Vec<ChunkRow>> {
    let mut cursor = Cursor(rows);
    let mut chunks = Vec::new();
    let mut at = 0;
    while !cursor.0.is_empty() {
        let row = ChunkRow { id: cursor.array()?, offset: cursor.u32()?, len: cursor.u32()? };
        need(row.offset == at, "chunks lie in order without gaps")?;
        need((1..=CHUNK_LEN_MAX).contains(&row.len), "length of a chunk")?;
        at += row.len;
        chunks.push(row);
    }
    need(at == plain && plain <= FRAME_PLAIN_MAX, "chunks cover the frame")?;
    Ok(chunks)
}

/// Back to back from the header to the end of the frames.
fn check_places(frames: &[Frame], end: u64) -> Result<()> {
    let mut at = HEADER_LEN;
    for frame in frames {
        need(frame.row.offset == at, "frames lie back to back")?;
        at += u64::from(frame.row.stored);
    }
    need(at == end, "end of the frames")
}

impl FrameRow {
    /// The frame's plain bytes. The chunks in them are still to be checked.
    pub fn open(&self, pack: &[u8], opener: &Opener) -> Result<Vec<u8>> {
        let start = self.offset as usize;
        let sealed = pack.get(start..start + self.stored as usize).ok_or("frame is cut short")?;
        let mut nonce = [0; 12];
        nonce[..8].copy_from_slice(&self.ordinal.to_le_bytes());
        let aad = [
            opener.context_hash().as_slice(),
            &nonce,
            &[self.codec],
            &self.plain.to_le_bytes(),
            &self.table,
            &self.base_rows,
        ];
        let encoded = opener.open(&nonce, &aad.concat(), sealed)?;
        let plain = decode(self.codec, &encoded, self.plain as usize)?;
        need(plain.len() == self.plain as usize, "plain length of a frame")?;
        Ok(plain)
    }
}

fn decode(codec: u8, encoded: &[u8], plain_len: usize) -> Result<Vec<u8>> {
    match codec {
        0 => Ok(encoded.to_vec()),
        1 => zstd_frame(encoded, plain_len),
        2 => numeric(encoded, plain_len),
        codec => Err(format!("codec {codec}: nothing frozen needs it yet")),
    }
}

fn zstd_frame(encoded: &[u8], plain_len: usize) -> Result<Vec<u8>> {
    let window_log_max = 26;
    let mut decoder = zstd::bulk::Decompressor::new().map_err(|error| error.to_string())?;
    let limit = zstd::zstd_safe::DParameter::WindowLogMax(window_log_max);
    decoder.set_parameter(limit).map_err(|error| error.to_string())?;
    decoder.decompress(encoded, plain_len).map_err(|error| error.to_string())
}

/// Codec 2.
fn numeric(encoded: &[u8], plain_len: usize) -> Result<Vec<u8>> {
    let mut cursor = Cursor(encoded);
    let (width, predictor, step) = (cursor.u16()? as usize, cursor.u8()?, cursor.u8()? as usize);
    let (row, lead) = (cursor.u16()? as usize, cursor.u8()? as usize);
    cursor.zero(1)?;
    need(predictor <= 3, "predictor of a numeric frame")?;
    let mut counts = Vec::new();
    for _ in 0..if predictor >= 2 { 5 } else { 0 } {
        counts.push(cursor.u32()? as usize);
    }
    let stored = zstd_frame(cursor.0, plain_len)?;
    need(stored.len() == plain_len, "length of a numeric frame")?;
    let lead = lead.min(plain_len);
    let n = (plain_len - lead) / width;
    let planes = &stored[lead..lead + n * width];
    let read = |i: usize| (0..width).map(|byte| planes[byte * n + i]).collect::<Vec<_>>();
    let mut plain = stored[..lead].to_vec();
    if predictor == 0 {
        plain.extend((0..n).flat_map(read));
    } else {
        let number = |i| read(i).iter().rev().fold(0, |sum, &byte| sum << 8 | u64::from(byte));
        let order = if predictor == 1 { (0..n).collect() } else { Vec::new() };
        let samples = predicted(predictor, (width, step, row), n, &counts, order, number)?;
        plain.extend(samples.iter().flat_map(|sample| sample.to_le_bytes()[..width].to_vec()));
    }
    plain.extend(&stored[lead + n * width..]);
    Ok(plain)
}

/// `order`: where each residual stands, or nothing yet; `number`: what stands at a place.
fn predicted(
    predictor: u8,
    (width, step, row): (usize, usize, usize),
    n: usize,
    counts: &[usize],
    mut order: Vec<usize>,
    number: impl Fn(usize) -> u64,
) -> Result<Vec<u64>> {
    let bits = 8 * width as u32;
    let mask = u64::MAX >> (64 - bits);
    let signed = |x: u64| (x << (64 - bits)) as i64 >> (64 - bits);
    let (mut samples, mut residuals) = (vec![0u64; n], vec![0u64; n]);
    let mut next: Vec<usize> =
        (0..6).map(|class| 8 * counts.iter().take(class).sum::<usize>()).collect();
    let ends: Vec<usize> = next.iter().skip(1).copied().chain([n / 8 * 8]).collect();
    for i in 0..n {
        if predictor >= 2 && i % 8 == 0 {
            if i + 8 > n {
                order.extend(i..n);
            } else {
                let above = if i < row { &[] } else { &residuals[i - row..i - row + 8] };
                let sum: u64 = above.iter().map(|&residual| residual.min(255)).sum();
                let class = [16, 48, 96, 192, 512].iter().filter(|&&bound| sum >= bound).count();
                need(next[class] + 8 <= ends[class], "counts of a numeric frame")?;
                order.extend(next[class]..next[class] + 8);
                next[class] += 8;
            }
        }
        residuals[i] = number(order[i]);
        let left = |at: usize| if at >= step { samples[at - step] } else { 0 };
        let guess = if predictor == 1 || i < row {
            left(i)
        } else if i % row < step {
            samples[i - row]
        } else {
            let (l, u, ul) = (left(i), samples[i - row], samples[i - row - step]);
            let (rise, slope) = (signed(u.wrapping_sub(l)), signed(u.wrapping_sub(ul)));
            let more =
                if predictor == 2 { rise >> 1 } else { rise.clamp(slope.min(0), slope.max(0)) };
            l.wrapping_add(more as u64)
        };
        let residual = (residuals[i] >> 1) ^ (residuals[i] & 1).wrapping_neg();
        samples[i] = guess.wrapping_add(residual) & mask;
    }
    Ok(samples)
}
