//! A look at spread pieces of a frame of which nothing is known: is it text, numbers of some width,
//! records of some length? Guesses only; a trial decides.

/// Spread pieces, and bytes in each.
const PIECES: usize = 8;
const PIECE: usize = 512;
pub const LOOKED: usize = PIECES * PIECE;
const LANES: usize = 8;
pub const RECORD_MAX: usize = 4096;
/// Bytes that are looked for one record further on, and the room they are picked from.
const ANCHORS: usize = 128;
const ANCHOR_ROOM: usize = 2 << 10;
/// Bytes that `record` needs.
pub const RECORD_ROOM: usize = ANCHOR_ROOM + RECORD_MAX;

/// Numbers that may lie in a frame.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Numbers {
    pub width: usize,
    pub delta: bool,
    /// Bytes before the first one.
    pub lead: usize,
    /// Their entropy as a share of that of the bytes.
    pub share: f64,
}

/// Pieces of `plain` (`LOOKED` bytes or more), each from a place that `LANES` divides.
fn pieces(plain: &[u8]) -> impl Iterator<Item = &[u8]> {
    let stride = (plain.len() - PIECE) / (PIECES - 1) / LANES * LANES;
    (0..PIECES).map(move |piece| &plain[piece * stride..][..PIECE])
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Text {
    No,
    /// Nothing ends its lines, so it may be records.
    Unbroken,
    Lines,
}

pub fn text(plain: &[u8]) -> Text {
    let (mut text, mut lines) = (0, 0);
    for piece in pieces(plain) {
        let plain_text = |&&byte: &&u8| (b' '..0x7F).contains(&byte) || matches!(byte, 9 | 10 | 13);
        text += piece.iter().filter(plain_text).count();
        lines += piece.iter().filter(|&&byte| byte == b'\n').count();
    }
    match (text > LOOKED * 15 / 16, lines >= PIECES) {
        (false, _) => Text::No,
        (true, false) => Text::Unbroken,
        (true, true) => Text::Lines,
    }
}

type Histogram = [u16; 256];

/// The numbers that the bytes look most like.
pub fn numbers(plain: &[u8], entropy: &Entropy) -> Numbers {
    let raw =
        histograms(pieces(plain).flat_map(|piece| piece.as_chunks::<LANES>().0.iter().copied()));
    let base = entropy.of(&folded(&raw, 1)[0]);
    let mut best = Numbers { width: 1, delta: false, lead: 0, share: 1.0 };
    for width in [1, 2, 4, 8] {
        let deltas = histograms(pieces(plain).flat_map(|piece| {
            let before = piece.as_chunks::<LANES>().0.iter();
            let now = piece[width..].as_chunks::<LANES>().0.iter();
            now.zip(before)
                .map(|(now, before)| std::array::from_fn(|i| now[i].wrapping_sub(before[i])))
        }));
        for (delta, lanes) in [(false, &raw), (true, &deltas)] {
            let lanes = folded(lanes, width);
            let mut bits = [0.0; LANES];
            for (bits, lane) in bits.iter_mut().zip(&lanes[..width]) {
                *bits = entropy.of(lane);
            }
            let share = bits.iter().sum::<f64>() / base;
            if share < best.share {
                best = Numbers { width, delta, lead: lowest(&bits[..width]), share };
            }
        }
    }
    best
}

fn histograms(bytes: impl Iterator<Item = [u8; LANES]>) -> [Histogram; LANES] {
    let mut histograms = [[0; 256]; LANES];
    for bytes in bytes {
        for (histogram, byte) in histograms.iter_mut().zip(bytes) {
            histogram[usize::from(byte)] += 1;
        }
    }
    histograms
}

/// Where the lowest byte of little-endian numbers is: the one that says most behind one that says
/// least.
fn lowest(lanes: &[f64]) -> usize {
    let rise = |lane: usize| lanes[lane] - lanes[(lane + lanes.len() - 1) % lanes.len()];
    (0..lanes.len()).max_by(|&a, &b| rise(a).total_cmp(&rise(b)).then(b.cmp(&a))).unwrap_or(0)
}

/// The histograms of `width` lanes, from those of more.
fn folded(lanes: &[Histogram; LANES], width: usize) -> [Histogram; LANES] {
    let mut folded = [[0; 256]; LANES];
    for (lane, histogram) in lanes.iter().enumerate() {
        for (sum, count) in folded[lane % width].iter_mut().zip(histogram) {
            *sum += count;
        }
    }
    folded
}

/// Entropy of histograms of at most `LOOKED` bytes, in bits; corrected for few samples (Miller 1955).
pub struct Entropy {
    /// n · log2 n
    table: Vec<f32>,
}

impl Entropy {
    pub fn new() -> Self {
        let of = |n: usize| if n == 0 { 0.0 } else { n as f32 * (n as f32).log2() };
        Self { table: (0..=LOOKED).map(of).collect() }
    }

    fn of(&self, histogram: &Histogram) -> f64 {
        let (mut total, mut distinct, mut sum) = (0, 0, 0.0);
        for &count in histogram {
            total += usize::from(count);
            distinct += u32::from(count > 0);
            sum += self.table[usize::from(count)];
        }
        let correction = f64::from(distinct.saturating_sub(1)) / 2.0 * std::f64::consts::LOG2_E;
        f64::from(self.table[total] - sum) + correction
    }
}

/// The length of records, if bytes come back at some distance far more often than at others.
/// `bytes`: `RECORD_ROOM` of them.
pub fn record(bytes: &[u8]) -> Option<usize> {
    let mut hits = [0u8; RECORD_MAX];
    let mut anchors = 0usize;
    for at in (0..ANCHOR_ROOM).step_by(3) {
        let anchor = bytes[at];
        // Padding says nothing.
        if anchors == ANCHORS || matches!(anchor, 0 | b' ' | 0xFF) {
            continue;
        }
        anchors += 1;
        for (hits, &byte) in hits.iter_mut().zip(&bytes[at + 1..]) {
            *hits += u8::from(byte == anchor);
        }
    }
    let most = usize::from(*hits.iter().max().expect("it is not empty"));
    let mean = hits.iter().map(|&hits| usize::from(hits)).sum::<usize>() / hits.len();
    if anchors < ANCHORS / 4 || most < mean + anchors / 4 {
        return None;
    }
    // Multiples of it do as well.
    let enough = most - (most - mean) / 4;
    hits.iter().position(|&hits| usize::from(hits) >= enough).map(|at| at + 1)
}
