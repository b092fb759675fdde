//! Where one chunk ends and the next begins. Cut points are a pure function of the source's bytes
//! from the last cut on: neither read sizes nor map windows nor threads move them. Knows no files,
//! no ids and no storage; chunkers are public and unkeyed (`repo.cbor` leaves room for keyed ones).
//! Where more than content is known of a file, `cut` has each of its parts cut as a source.
//!
//! # The rule of `MinCdc`, from which it can be written again
//!
//! Parameters `min` and `max` in bytes, all arithmetic on `u32` modulo 2^32. Let `d` be the bytes
//! from the last cut on and `n` how many there are up to the end of the source.
//!
//! 1. **Short end.** If `n <= min`, or `n < max` and `n <= min + min / 4`, the chunk is all `n`
//!    bytes. (A 512 × 512 × 16-bit slice with its header is just above 512 KiB; without this every
//!    slice of a CT study would be stored as one chunk and a crumb.)
//! 2. **Minimum.** Let `end = min(n, max)`. Each `p` in `min..=end` has the value
//!    `h(p) = le32(d[p-4..p]) * 0x915f77f5 + 0x34636463`. The candidate is the smallest `p` with
//!    the least value (Orson Peters' MinCDC, 2024, as in crate `mothcdc`, `MinCdcHash4`).
//! 3. **Low entropy.** If the candidate `c < min + near`, where `near = max(4, (max - min) / 256)`,
//!    the chunk ends not at `c` but at the *largest* `p` in `min..=end` with `h(p) = h(c)`, which is
//!    the last place where the same four bytes stand. Otherwise it ends at `c`.
//!
//! Rule 3 is there because equal minima tie: in zeros, padding and anything else with a period of
//! up to `near` bytes the first minimum lies within `near` of `min`, and every chunk would be of
//! minimum size. With it such chunks end within one period of `max`. On high-entropy data it
//! applies to about one chunk in 256 and then changes nothing, as four bytes seldom stand twice in
//! one chunk. Measured in `docs/decisions/0001-default-chunker.md`.
//!
//! # `FastCdc`
//!
//! Crate `fastcdc` 5.0, module `v2020`, normalization level 1, seed 0: Xia et al., "The Design of
//! Fast Content-Defined Chunking for Data Deduplication Based Storage Systems" (IEEE TPDS 2020).

use fastcdc::v2020;
use mothcdc::mincdc::{Cdc, MinCdcHash4};

/// Width of the window whose value decides a cut of `MinCdc`.
const WINDOW_BYTES: usize = 4;
/// Rule 3 applies where the candidate lies in the first of this many parts of the search range.
const NEAR_PARTS: usize = 256;
/// No chunker may ask for larger chunks: the reader's window must hold one.
pub const CHUNK_BYTES_MAX: u32 = v2020::MAXIMUM_MAX as u32;
/// No chunker may ask for smaller chunks (except at the end of a source).
pub const CHUNK_BYTES_MIN: u32 = v2020::MINIMUM_MIN as u32;

/// How a source is cut into chunks; sizes in bytes. Fixed for the life of a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chunker {
    /// Windowed minimum. The mean size is `(min + max) / 2` on high-entropy data.
    MinCdc { min: u32, max: u32 },
    /// The classic rolling-hash chunker, selectable for comparison and caution.
    FastCdc { min: u32, avg: u32, max: u32 },
}

impl Chunker {
    /// What `init` takes when nothing is asked for: mean 1 MiB, minimum 512 KiB.
    pub const DEFAULT: Chunker = Chunker::MinCdc { min: 512 << 10, max: 1536 << 10 };

    /// `DEFAULT`'s shape at another mean: from half of it to one and a half.
    pub const fn min_cdc_with_mean(mean_bytes: u32) -> Chunker {
        Chunker::MinCdc { min: mean_bytes / 2, max: mean_bytes / 2 * 3 }
    }

    /// Whether the sizes are ones that `first_cut` accepts. Parameters that come from outside
    /// (a command line, a repository) must be asked this before the first cut.
    pub fn is_valid(&self) -> bool {
        let size = |s: u32| (CHUNK_BYTES_MIN..=CHUNK_BYTES_MAX).contains(&s) && s.is_multiple_of(2);
        match *self {
            Chunker::MinCdc { min, max } => size(min) && size(max) && min < max,
            Chunker::FastCdc { min, avg, max } => {
                let fits_crate = min <= v2020::MINIMUM_MAX as u32
                    && (v2020::AVERAGE_MIN as u32..=v2020::AVERAGE_MAX as u32).contains(&avg)
                    && max >= v2020::MAXIMUM_MIN as u32;
                size(min) && size(avg) && size(max) && min <= avg && avg < max && fits_crate
            }
        }
    }

    /// A source of up to so many bytes is one chunk.
    pub fn whole_bytes(&self) -> usize {
        match *self {
            Chunker::MinCdc { min, max } => (min + min / 4).min(max - 1) as usize,
            Chunker::FastCdc { min, .. } => min as usize,
        }
    }

    /// No chunk but the last of a source is shorter.
    pub fn min_bytes(&self) -> usize {
        match *self {
            Chunker::MinCdc { min, .. } | Chunker::FastCdc { min, .. } => min as usize,
        }
    }

    /// No chunk is longer; with this many bytes at hand `first_cut` always decides.
    pub fn max_bytes(&self) -> usize {
        match *self {
            Chunker::MinCdc { max, .. } | Chunker::FastCdc { max, .. } => max as usize,
        }
    }

    /// Length of the first chunk of `data`, which begins at the last cut.
    ///
    /// `last`: `data` runs to the end of the source. `None`: nothing is left, or more bytes are
    /// needed, which happens only while `data.len() < max_bytes()` and not `last`.
    pub fn first_cut(&self, data: &[u8], last: bool) -> Option<usize> {
        debug_assert!(self.is_valid(), "sizes were not checked: {self:?}");
        if data.is_empty() || (!last && data.len() < self.max_bytes()) {
            return None;
        }
        let cut = match *self {
            Chunker::MinCdc { min, max } => min_cdc_cut(data, min as usize, max as usize),
            Chunker::FastCdc { min, avg, max } => fast_cdc_cut(data, min, avg, max),
        };
        assert!(cut > 0 && cut <= data.len().min(self.max_bytes()), "cut {cut} by {self:?}");
        Some(cut)
    }
}

impl Default for Chunker {
    fn default() -> Self {
        Chunker::DEFAULT
    }
}

fn min_cdc_cut(data: &[u8], min: usize, max: usize) -> usize {
    let n = data.len();
    if n <= min || (n < max && n <= min + min / 4) {
        return n;
    }
    let start = min - WINDOW_BYTES;
    let search = &data[start..n.min(max)];
    let candidate = MinCdcHash4::new().best_splitpoint(search);
    let near = ((max - min) / NEAR_PARTS).max(WINDOW_BYTES);
    if candidate >= WINDOW_BYTES + near {
        return start + candidate;
    }
    start + last_place_of_same_window(search, candidate)
}

/// The largest end of a window in `search` that equals the one that ends at `candidate`. The hash
/// is a bijection (odd multiplier), so equal bytes and equal values are the same thing.
fn last_place_of_same_window(search: &[u8], candidate: usize) -> usize {
    let window = &search[candidate - WINDOW_BYTES..candidate];
    let from_the_end = search.windows(WINDOW_BYTES).rev().position(|w| w == window);
    search.len() - from_the_end.expect("the candidate's own window is there")
}

fn fast_cdc_cut(data: &[u8], min: u32, avg: u32, max: u32) -> usize {
    let (strict, relaxed) = v2020::select_masks(avg as usize, v2020::Normalization::Level1);
    let sizes = (min as usize, avg as usize, max as usize);
    v2020::cut(data, sizes.0, sizes.1, sizes.2, strict, relaxed, strict << 1, relaxed << 1).1
}

#[cfg(test)]
mod tests {
    use super::Chunker;

    /// The sizes tests use, small so that many chunks fit into little data.
    const MIN_CDC: Chunker = Chunker::MinCdc { min: 1024, max: 3072 };
    const FAST_CDC: Chunker = Chunker::FastCdc { min: 1024, avg: 2048, max: 8192 };

    fn random(len: usize, seed: &str) -> Vec<u8> {
        let mut out = vec![0; len];
        let key = blake3::hash(seed.as_bytes());
        blake3::Hasher::new_keyed(key.as_bytes()).finalize_xof().fill(&mut out);
        out
    }

    fn csv_like(len: usize) -> Vec<u8> {
        let noise = random(len, "csv");
        let mut out = Vec::with_capacity(len + 64);
        for (row, pair) in noise.chunks_exact(2).enumerate() {
            let line = format!("STUDY-01,SITE-{:03},{row:08},VITALS,{}\n", pair[0] % 7, pair[1]);
            out.extend_from_slice(line.as_bytes());
            if out.len() >= len {
                break;
            }
        }
        out.truncate(len);
        out
    }

    /// 16-bit rows as in a CT slice: air to the left and right, tissue with noise in the middle.
    fn ct_like(len: usize) -> Vec<u8> {
        let noise = random(len, "ct");
        let sample = |i: usize| match i % 512 {
            120..392 => 1000 + u16::from(noise[i] % 64),
            _ => 0xfc18,
        };
        (0..len / 2).flat_map(|i| sample(i).to_le_bytes()).collect()
    }

    fn periodic(len: usize, period: usize) -> Vec<u8> {
        random(period, "periodic").into_iter().cycle().take(len).collect()
    }

    fn samples(len: usize) -> Vec<(&'static str, Vec<u8>)> {
        vec![
            ("random", random(len, "sample")),
            ("zeros", vec![0; len]),
            ("ones", vec![0xff; len]),
            ("csv", csv_like(len)),
            ("ct", ct_like(len)),
            ("period 2", periodic(len, 2)),
            ("period 4", periodic(len, 4)),
            ("period 7", periodic(len, 7)),
            ("period 1024", periodic(len, 1024)),
            ("two bytes", random(len, "bits").iter().map(|b| b & 1).collect()),
        ]
    }

    fn cuts(chunker: Chunker, data: &[u8]) -> Vec<usize> {
        cuts_windowed(chunker, data, data.len().max(1), data.len().max(1))
    }

    /// Cuts as a reader would that holds `window` bytes, refills in steps of `step` and keeps what
    /// no chunk has taken yet.
    fn cuts_windowed(chunker: Chunker, data: &[u8], window: usize, step: usize) -> Vec<usize> {
        let (mut at, mut filled, mut out) = (0, 0, Vec::new());
        while at < data.len() {
            let held = &data[at..filled];
            match chunker.first_cut(held, filled == data.len()) {
                Some(cut) => {
                    at += cut;
                    out.push(cut);
                }
                None => {
                    assert!(held.len() < chunker.max_bytes(), "undecided with enough bytes");
                    filled = data.len().min((filled + step).min(at + window));
                }
            }
        }
        out
    }

    /// The rule as the file's head states it, word by word and without the crate.
    fn plain_min_cdc(d: &[u8], min: usize, max: usize) -> usize {
        let n = d.len();
        if n <= min || (n < max && n <= min + min / 4) {
            return n;
        }
        let h = |p: usize| {
            let window = u32::from_le_bytes([d[p - 4], d[p - 3], d[p - 2], d[p - 1]]);
            window.wrapping_mul(0x915f_77f5).wrapping_add(0x3463_6463)
        };
        let end = n.min(max);
        let least = (min..=end).map(h).min().unwrap();
        let candidate = (min..=end).find(|&p| h(p) == least).unwrap();
        let near = std::cmp::max(4, (max - min) / 256);
        if candidate < min + near {
            (min..=end).rev().find(|&p| h(p) == least).unwrap()
        } else {
            candidate
        }
    }

    #[test]
    fn min_cdc_equals_its_plain_twin() {
        for (min, max) in [(64, 128), (64, 4096), (1024, 3072), (2048, 2100), (4096, 12288)] {
            for (name, data) in samples(100_003) {
                let chunker = Chunker::MinCdc { min, max };
                let mut at = 0;
                for cut in cuts(chunker, &data) {
                    let plain = plain_min_cdc(&data[at..], min as usize, max as usize);
                    assert_eq!(cut, plain, "{name} with {chunker:?} at {at}");
                    at += cut;
                }
                assert_eq!(at, data.len());
            }
        }
    }

    #[test]
    fn min_cdc_equals_its_plain_twin_at_every_length_near_the_limits() {
        let data = random(600, "limits");
        for n in 1..=600 {
            let cut = Chunker::MinCdc { min: 128, max: 512 }.first_cut(&data[..n], true);
            assert_eq!(cut, Some(plain_min_cdc(&data[..n], 128, 512)), "length {n}");
        }
    }

    #[test]
    fn windows_do_not_move_cuts() {
        for chunker in [MIN_CDC, FAST_CDC] {
            let max = chunker.max_bytes();
            for (name, data) in samples(150_001) {
                let whole = cuts(chunker, &data);
                for (window, step) in [(max, 1), (max, max), (max + 1, 77), (5 * max, 4096)] {
                    let windowed = cuts_windowed(chunker, &data, window, step);
                    assert_eq!(windowed, whole, "{name}, {chunker:?}, {window}, {step}");
                }
            }
        }
    }

    #[test]
    fn sizes_stay_within_the_limits() {
        for chunker in [MIN_CDC, FAST_CDC] {
            for (name, data) in samples(200_000) {
                let cuts = cuts(chunker, &data);
                assert_eq!(cuts.iter().sum::<usize>(), data.len());
                for cut in &cuts[..cuts.len() - 1] {
                    let range = chunker.min_bytes()..=chunker.max_bytes();
                    assert!(range.contains(cut), "{name}: {cut} by {chunker:?}");
                }
            }
        }
    }

    #[test]
    fn low_entropy_is_cut_near_the_maximum() {
        for chunker in [Chunker::MinCdc { min: 4096, max: 12288 }, Chunker::DEFAULT] {
            let near = (chunker.max_bytes() - chunker.min_bytes()) / 256;
            for period in [1, 2, 3, 4, 5, 16, 32] {
                assert!(period <= near);
                let data = periodic(6 * chunker.max_bytes(), period);
                let cuts = cuts(chunker, &data);
                for cut in &cuts[..cuts.len() - 2] {
                    let short = chunker.max_bytes() - cut;
                    assert!(short < period + 4, "period {period}: {short} short of max");
                }
            }
        }
    }

    #[test]
    fn a_slice_just_above_the_minimum_is_one_chunk() {
        let slice = random(512 * 512 * 2 + 2_500, "slice");
        assert_eq!(cuts(Chunker::DEFAULT, &slice), [slice.len()]);
    }

    #[test]
    fn cuts_are_found_again_after_an_insertion() {
        let before = random(1 << 20, "edit");
        let mut after = before.clone();
        after.splice(1000..1000, *b"inserted");
        for chunker in [MIN_CDC, FAST_CDC] {
            let (a, b) = (cuts(chunker, &before), cuts(chunker, &after));
            let same = a.iter().rev().zip(b.iter().rev()).take_while(|(x, y)| x == y).count();
            assert!(same * 100 >= a.len() * 90, "{same} of {} cuts by {chunker:?}", a.len());
        }
    }

    #[test]
    fn golden_cuts() {
        let hash = |chunker, data: &[u8]| {
            let cuts: Vec<u8> =
                cuts(chunker, data).iter().flat_map(|&c| (c as u64).to_le_bytes()).collect();
            blake3::hash(&cuts).to_hex()[..16].to_owned()
        };
        let data = random(4 << 20, "golden");
        let csv = csv_like(1 << 20);
        assert_eq!(
            cuts(MIN_CDC, &data[..16384]),
            [2242, 3000, 1682, 1408, 1944, 1567, 1810, 2511, 220]
        );
        assert_eq!(cuts(FAST_CDC, &data[..16384]), [1316, 3713, 2173, 2075, 2171, 3541, 1395]);
        assert_eq!(cuts(Chunker::DEFAULT, &data), [860883, 1495992, 1448274, 389155]);
        assert_eq!(hash(MIN_CDC, &data), "0019b2dffa43b25d");
        assert_eq!(hash(FAST_CDC, &data), "49a2251f9d02b11b");
        assert_eq!(hash(MIN_CDC, &csv), "948a1e7cecaa57cc");
        assert_eq!(hash(FAST_CDC, &csv), "34e43eeac2ee9b19");
        assert_eq!(hash(Chunker::DEFAULT, &csv.repeat(12)), "2ff112c7aa6b0d2c");
    }

    #[test]
    fn bad_sizes_are_refused() {
        let valid = |min, max| Chunker::MinCdc { min, max }.is_valid();
        assert!(Chunker::DEFAULT.is_valid() && MIN_CDC.is_valid() && FAST_CDC.is_valid());
        assert!(!valid(0, 4096) && !valid(4096, 4096) && !valid(8192, 4096));
        assert!(!valid(4095, 8192) && !valid(4096, u32::MAX - 1));
        assert!(!Chunker::FastCdc { min: 1024, avg: 512, max: 4096 }.is_valid());
        assert!(!Chunker::FastCdc { min: 64, avg: 128, max: 512 }.is_valid());
    }

    #[test]
    fn nothing_is_cut_from_nothing_and_undecided_asks_for_more() {
        for chunker in [MIN_CDC, FAST_CDC] {
            assert_eq!(chunker.first_cut(&[], true), None);
            assert_eq!(chunker.first_cut(&[7; 100], false), None);
            assert_eq!(chunker.first_cut(&[7; 100], true), Some(100));
            assert!(chunker.first_cut(&vec![7; chunker.max_bytes()], false).is_some());
        }
    }
}
