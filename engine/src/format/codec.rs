//! Codecs: how a frame's plain bytes are stored (`docs/format.md`, 5). Decoding is bounded by the
//! length that the frame's row claims; what to try on which data, and which bases to use, is
//! decided elsewhere.

mod choose;
mod numeric;
mod probe;
#[cfg(test)]
mod tests;

use zstd::zstd_safe::{
    CCtx, CParameter, DCtx, ParamSwitch, Strategy, compress_bound, find_frame_compressed_size,
};

use crate::error::FormatError;
use crate::format::codec::choose::{Choice, Chooser};
use crate::format::codec::numeric::{Filter, Scratch};
use crate::format::codec::probe::Probe;
use crate::format::layout::{check, limit};
use crate::format::pack::{FRAME_BASE_BYTES_MAX, FRAME_BASES_MAX, FRAME_PLAIN_MAX};

pub use crate::format::codec::numeric::predict::Predictor;

const FRAME: &str = "frame";
/// Largest window a zstd frame may ask for: 64 MiB.
const WINDOW_LOG_MAX: u32 = 26;
const ZSTD_MAGIC: [u8; 4] = 0xFD2F_B528_u32.to_le_bytes();
/// A frame is compressed only if that saves 1/64 (1.6 %) of it or more.
const SAVING_MIN: usize = 64;
/// What the parameters below do not set is that of this level.
const LEVEL: i32 = 1;
const SMALL: usize = 64 << 10;
/// zstd 1 with the two tables of zstd 3, which look for short and for long matches, made small enough to
/// stay in the L2 cache: 1–8 % smaller than zstd 1 on most exports, within 1 % of the size of zstd 3; but
/// on very repetitive text 3–11 % larger, and slower on all (`docs/performance.md`).
const TWO_TABLES: [CParameter; 5] = [
    CParameter::Strategy(Strategy::ZSTD_dfast),
    CParameter::MinMatch(5),
    CParameter::HashLog(15),
    CParameter::ChainLog(14),
    CParameter::WindowLog(20),
];
/// Which of the two ways is smaller is tried on so much of a frame that is much longer.
const TRIED_BYTES: usize = 32 << 10;
/// Planes of residuals are noise, or nearly empty: what is worth matching is long, and what is not
/// found soon is not there. Literals are always coded.
const PLANES: [CParameter; 6] = [
    CParameter::Strategy(Strategy::ZSTD_fast),
    CParameter::MinMatch(7),
    CParameter::HashLog(12),
    CParameter::TargetLength(8),
    CParameter::WindowLog(17),
    CParameter::LiteralCompressionMode(ParamSwitch::Enable),
];

/// Numbers are the format's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Codec {
    Stored = 0,
    Zstd = 1,
    Numeric = 2,
    Delta = 3,
}

impl Codec {
    pub fn from_u8(codec: u8) -> Result<Self, FormatError> {
        [Self::Stored, Self::Zstd, Self::Numeric, Self::Delta]
            .into_iter()
            .find(|&c| c as u8 == codec)
            .ok_or_else(|| FormatError::Unsupported {
                object: FRAME,
                feature: format!("codec {codec}"),
            })
    }
}

/// How numbers lie in a chunk that begins with one, as far as its file says. A hint: wrong ones cost
/// space, never content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Samples {
    /// Bytes of a sample (1, 2, 4, 8), little-endian; or of a whole record, when nothing is known
    /// of what is in it.
    pub width: u16,
    /// Samples from one to its left neighbour of the same kind: 3 in interleaved RGB, else 1.
    pub step: u8,
    /// Samples from one to the one above it: the length of an image's row. 0: there are no rows.
    pub row: u16,
}

/// Undoes every codec; keeps its contexts and buffers from frame to frame.
pub struct Decoder {
    zstd: DCtx<'static>,
    scratch: Vec<u8>,
    filter: Scratch,
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Decoder {
    pub fn new() -> Self {
        Self { zstd: DCtx::create(), scratch: Vec::new(), filter: Scratch::default() }
    }

    /// Works with the numeric filter's buffers of an encoder, which has none meanwhile: called again, it
    /// gives them back. Whoever encodes and decodes in turns so needs them once.
    pub fn swap_room(&mut self, encoder: &mut Encoder) {
        std::mem::swap(&mut self.filter, &mut encoder.filter);
    }

    /// Replaces `out` by the frame's plain bytes, exactly `plain_len` of them; on error `out` is
    /// empty. `bases` are the plain bytes of the frame's base ranges, in order. Hand in the same
    /// `out` again without clearing it: then nothing is zeroed.
    pub fn decode(
        &mut self,
        codec: u8,
        encoded: &[u8],
        plain_len: u32,
        bases: &[&[u8]],
        out: &mut Vec<u8>,
    ) -> Result<(), FormatError> {
        let done = self.decode_inner(codec, encoded, plain_len, bases, out);
        if done.is_err() {
            out.clear();
        }
        done
    }

    /// As `decode`, without a copy where there is nothing to decode.
    pub fn decode_in_place<'b>(
        &mut self,
        codec: u8,
        encoded: &'b [u8],
        plain_len: u32,
        bases: &[&[u8]],
        out: &'b mut Vec<u8>,
    ) -> Result<&'b [u8], FormatError> {
        if codec == Codec::Stored as u8 && bases.is_empty() && encoded.len() == plain_len as usize {
            return Ok(encoded);
        }
        self.decode(codec, encoded, plain_len, bases, out).map(|()| &out[..])
    }

    fn decode_inner(
        &mut self,
        codec: u8,
        encoded: &[u8],
        plain_len: u32,
        bases: &[&[u8]],
        out: &mut Vec<u8>,
    ) -> Result<(), FormatError> {
        let codec = Codec::from_u8(codec)?;
        limit(FRAME, plain_len <= FRAME_PLAIN_MAX, "plain length")?;
        check(FRAME, (codec == Codec::Delta) != bases.is_empty(), "bases and codec disagree")?;
        match codec {
            Codec::Stored => {
                check(FRAME, encoded.len() == plain_len as usize, "its length is another")?;
                out.clear();
                out.extend_from_slice(encoded);
                Ok(())
            }
            Codec::Zstd => decompress(&mut self.zstd, encoded, plain_len, out),
            Codec::Numeric => {
                let (filter, counts, encoded) = Filter::read(encoded)?;
                decompress(&mut self.zstd, encoded, plain_len, &mut self.filter.planes)?;
                filter.undo(&counts, &mut self.filter, out)
            }
            Codec::Delta => {
                let total: usize = bases.iter().map(|base| base.len()).sum();
                limit(FRAME, bases.len() <= FRAME_BASES_MAX as usize, "number of bases")?;
                limit(FRAME, total as u64 <= FRAME_BASE_BYTES_MAX, "bytes of bases")?;
                let prefix = match bases {
                    [prefix] => prefix,
                    _ => {
                        concatenate(bases, &mut self.scratch);
                        &self.scratch[..]
                    }
                };
                // A context may not outlive its prefix, so this one is new each time: a few
                // microseconds.
                let mut zstd = DCtx::create();
                zstd.ref_prefix(prefix).map_err(|_| malformed("its prefix is refused"))?;
                decompress(&mut zstd, encoded, plain_len, out)
            }
        }
    }
}

/// One zstd frame that fills `encoded`, into exactly `plain_len` bytes.
fn decompress(
    zstd: &mut DCtx<'_>,
    encoded: &[u8],
    plain_len: u32,
    out: &mut Vec<u8>,
) -> Result<(), FormatError> {
    check_window(encoded)?;
    let whole = find_frame_compressed_size(encoded) == Ok(encoded.len());
    check(FRAME, whole, "it is not one zstd frame")?;
    out.resize(plain_len as usize, 0);
    let len =
        zstd.decompress(out.as_mut_slice(), encoded).map_err(|_| malformed("zstd refuses it"))?;
    check(FRAME, len == plain_len as usize, "its length is another")
}

/// zstd itself limits windows only when it streams, so the header (RFC 8878, 3.1.1.1) is read here.
fn check_window(encoded: &[u8]) -> Result<(), FormatError> {
    let cut = FormatError::Truncated { object: FRAME };
    let Some((magic, rest)) = encoded.split_first_chunk::<4>() else { return Err(cut) };
    check(FRAME, *magic == ZSTD_MAGIC, "it is not a zstd frame")?;
    let [descriptor, window, ..] = *rest else { return Err(cut) };
    let single_segment = descriptor & 0x20 != 0;
    if single_segment {
        // The window is the content size, which zstd holds to the room it is given.
        return Ok(());
    }
    let log = u32::from(window >> 3) + 10;
    let fits = log < WINDOW_LOG_MAX || (log == WINDOW_LOG_MAX && window & 7 == 0);
    limit(FRAME, fits, "window above 64 MiB")
}

fn malformed(what: &'static str) -> FormatError {
    FormatError::Malformed { object: FRAME, what }
}

fn concatenate(parts: &[&[u8]], out: &mut Vec<u8>) {
    out.clear();
    for part in parts {
        out.extend_from_slice(part);
    }
}

/// Applies the codecs; keeps its contexts and buffers from frame to frame.
pub struct Encoder {
    /// By one table and by two.
    zstd: [CCtx<'static>; 2],
    probe: Probe,
    chooser: Chooser,
    /// Behind the filter.
    planes_zstd: CCtx<'static>,
    filter: Scratch,
    other: Vec<u8>,
    /// What zstd writes to; never cleared, so that nothing is zeroed.
    room: Vec<u8>,
}

impl Default for Encoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Encoder {
    pub fn new() -> Self {
        Self {
            zstd: [context(&[]), context(&TWO_TABLES)],
            probe: Probe::new(),
            chooser: Chooser::new(),
            planes_zstd: context(&PLANES),
            filter: Scratch::default(),
            other: Vec::new(),
            room: Vec::new(),
        }
    }

    /// The encoded bytes, by whichever codec without bases takes the fewest. They stand in `buffer`,
    /// or are the plain bytes themselves. `samples`: what the file's header says; without it a look
    /// at the bytes decides.
    pub fn encode<'b>(
        &mut self,
        plain: &'b [u8],
        samples: Option<Samples>,
        buffer: &'b mut Vec<u8>,
    ) -> (Codec, &'b [u8]) {
        match self.choose(plain, samples, buffer) {
            Codec::Stored => (Codec::Stored, plain),
            codec => (codec, buffer),
        }
    }

    /// The same by zstd alone, where that saves 1/64 or more.
    pub fn encode_plain<'b>(
        &mut self,
        plain: &'b [u8],
        buffer: &'b mut Vec<u8>,
    ) -> (Codec, &'b [u8]) {
        match self.plainly(plain, buffer) {
            Codec::Stored => (Codec::Stored, plain),
            codec => (codec, buffer),
        }
    }

    /// `out` stays as it is, or is of no use, if the codec is `Stored`.
    fn choose(&mut self, plain: &[u8], samples: Option<Samples>, out: &mut Vec<u8>) -> Codec {
        let choice = match samples {
            Some(samples) => choose::with_hint(plain, samples),
            None if self.probe.is_incompressible(plain) => return Codec::Stored,
            None => self.chooser.without_hint(plain),
        };
        match choice {
            Choice::Plain if samples.is_none() => self.compress(plain, out),
            Choice::Plain => self.plainly(plain, out),
            Choice::Filter(filter) => {
                self.encode_filter(&filter, plain, out);
                if out.len() <= len_max(plain) { Codec::Numeric } else { self.plainly(plain, out) }
            }
            Choice::Both(filter) => {
                let mut filtered = std::mem::take(&mut self.other);
                self.encode_filter(&filter, plain, &mut filtered);
                let codec = self.plainly(plain, out);
                let len = if codec == Codec::Stored { plain.len() } else { out.len() };
                let smaller = filtered.len() < len;
                if smaller {
                    std::mem::swap(out, &mut filtered);
                }
                self.other = filtered;
                if smaller { Codec::Numeric } else { codec }
            }
        }
    }

    fn plainly(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Codec {
        if self.probe.is_incompressible(plain) { Codec::Stored } else { self.compress(plain, out) }
    }

    fn compress(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Codec {
        let len_max = len_max(plain);
        // Less room than the plain bytes take, so that zstd itself stops when it saves nothing. It
        // wants some slack, which matters only to small frames.
        let len = if plain.len() < SMALL { compress_bound(plain.len()) } else { len_max };
        let way = self.way(plain);
        let room = room(&mut self.room, len);
        let done = self.zstd[way].compress2(room, plain);
        match done.ok().filter(|&len| len <= len_max) {
            Some(len) => {
                out.clear();
                out.extend_from_slice(&room[..len]);
                Codec::Zstd
            }
            None => Codec::Stored,
        }
    }

    /// Which of the contexts to use.
    fn way(&mut self, plain: &[u8]) -> usize {
        if plain.len() < 4 * TRIED_BYTES {
            return 1;
        }
        let tried = &plain[plain.len() / 2..][..TRIED_BYTES];
        let room = room(&mut self.room, compress_bound(tried.len()));
        let [one, two] = self
            .zstd
            .each_mut()
            .map(|zstd| zstd.compress2(room, tried).expect("room for the bound"));
        // Two gain more the longer a frame is.
        usize::from(two <= one + one / 100)
    }

    /// Replaces `out` by codec 2, whether that is smaller or not. `lead`: bytes before the first
    /// sample. `None`: the predictor cannot work with such samples.
    pub fn encode_numeric(
        &mut self,
        samples: Samples,
        predictor: Predictor,
        lead: u8,
        plain: &[u8],
        out: &mut Vec<u8>,
    ) -> Option<()> {
        let filter = Filter::new(samples, predictor, lead).ok()?;
        self.encode_filter(&filter, plain, out);
        Some(())
    }

    pub(in crate::format::codec) fn encode_filter(
        &mut self,
        filter: &Filter,
        plain: &[u8],
        out: &mut Vec<u8>,
    ) {
        filter.apply(plain, &mut self.filter, out);
        let planes = &self.filter.planes;
        let zstd = if filter.predicts() { &mut self.planes_zstd } else { &mut self.zstd[1] };
        let room = room(&mut self.room, compress_bound(planes.len()));
        let len = zstd.compress2(room, planes).expect("room for the bound");
        out.extend_from_slice(&room[..len]);
    }

    /// Replaces `out` by codec 3: zstd with long-distance matching, and the base ranges,
    /// concatenated (not empty, 8 MiB at most), as its prefix.
    pub fn encode_delta(&mut self, prefix: &[u8], plain: &[u8], out: &mut Vec<u8>) {
        assert!(!prefix.is_empty() && prefix.len() as u64 <= FRAME_BASE_BYTES_MAX);
        // As in `decode`: the context must not outlive the prefix.
        let mut zstd = CCtx::create();
        set_up(&mut zstd);
        let window = (prefix.len() + plain.len()).next_power_of_two().ilog2();
        let window = CParameter::WindowLog(window.clamp(10, WINDOW_LOG_MAX));
        for parameter in [window, CParameter::EnableLongDistanceMatching(true)] {
            zstd.set_parameter(parameter).expect("a parameter of zstd");
        }
        zstd.ref_prefix(prefix).expect("a context between frames");
        let room = room(&mut self.room, compress_bound(plain.len()));
        let len = zstd.compress2(room, plain).expect("room for the bound");
        out.clear();
        out.extend_from_slice(&room[..len]);
    }
}

fn room(kept: &mut Vec<u8>, len: usize) -> &mut [u8] {
    if kept.len() < len {
        kept.resize(len, 0);
    }
    &mut kept[..len]
}

/// The most that a frame may take encoded.
fn len_max(plain: &[u8]) -> usize {
    plain.len().saturating_sub((plain.len() / SAVING_MIN).max(1))
}

fn context(more: &[CParameter]) -> CCtx<'static> {
    let mut zstd = CCtx::create();
    set_up(&mut zstd);
    for &parameter in more {
        zstd.set_parameter(parameter).expect("a parameter of zstd");
    }
    zstd
}

fn set_up(zstd: &mut CCtx<'_>) {
    // Integrity is the seal's, so no checksum.
    for parameter in [CParameter::CompressionLevel(LEVEL), CParameter::ChecksumFlag(false)] {
        zstd.set_parameter(parameter).expect("a level of zstd");
    }
}
