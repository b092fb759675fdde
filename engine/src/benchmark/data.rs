//! Built-in data: the same bytes everywhere, like what is backed up in entropy and structure, not in meaning.

use crate::format::codec::Samples;

/// Rows of the table that differ a night later: one in this many.
const ROWS_PER_CHANGE: u64 = 100;
/// Pixels of a row and of a column.
const SIDE: usize = 512;
pub const IMAGE_SAMPLES: Samples = Samples { width: 2, step: 1, row: SIDE as u16 };

/// What built-in data is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Random bytes, as archives and encrypted exports are.
    Noise,
    /// A table of an EDC export.
    Csv,
    /// CT-like slices, 16 bits a sample.
    Image,
}

pub const KINDS: [Kind; 3] = [Kind::Noise, Kind::Csv, Kind::Image];

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::Noise => "incompressible",
            Kind::Csv => "csv",
            Kind::Image => "image16",
        }
    }

    pub fn bytes(self, len: usize) -> Vec<u8> {
        match self {
            Kind::Noise => noise(len),
            Kind::Csv => csv(len, false),
            Kind::Image => image(len),
        }
    }

    /// What a file's header would say of it.
    pub fn samples(self) -> Option<Samples> {
        (self == Kind::Image).then_some(IMAGE_SAMPLES)
    }
}

pub fn noise(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new_keyed(&[0x5a; 32]).finalize_xof().fill(&mut bytes);
    bytes
}

/// `later`: the next night's version, with one row in a hundred changed.
pub fn csv(len: usize, later: bool) -> Vec<u8> {
    let mut out = b"SITEID,USUBJID,VISIT,VISITDAT,TESTCD,ORRES,ORRESU,STATUS,UPDATED,BY\n".to_vec();
    let mut row = 0;
    while out.len() < len {
        let changed = later && Rng::at(row ^ 0x6e32).below(ROWS_PER_CHANGE) == 0;
        push_row(&mut out, row, Rng::at(row ^ (u64::from(changed) << 60)));
        row += 1;
    }
    out.truncate(len);
    out
}

fn push_row(out: &mut Vec<u8>, row: u64, mut rng: Rng) {
    const TESTS: [(&str, &str); 4] =
        [("SYSBP", "mmHg"), ("PULSE", "beats/min"), ("ALT", "U/L"), ("GLUC", "mmol/L")];
    let (subject, visit) = (row / 60, row / 8 % 7 + 1);
    let (site, (test, unit)) = (subject % 37, TESTS[(row % 4) as usize]);
    let (month, day, result) = (1 + rng.below(12), 1 + rng.below(28), 500 + rng.below(1200));
    let status = ["VERIFIED", "COMPLETE", "COMPLETE", "OPEN"][rng.below(4) as usize];
    let (updated, second) = (1 + rng.below(28), rng.below(86_400));
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let by = ["jmeier", "asmith", "kwong", "import"][rng.below(4) as usize];
    let line = format!(
        "{site:03},STR-{site:03}-{subject:05},VISIT {visit},2026-{month:02}-{day:02},{test},{}.{},{unit},\
         {status},2026-11-{updated:02}T{hour:02}:{minute:02}:{second:02}Z,{by}\n",
        result / 10,
        result % 10,
    );
    out.extend_from_slice(line.as_bytes());
}

/// A body whose density varies smoothly, under noise that is correlated along rows and columns, in a circle.
fn image(len: usize) -> Vec<u8> {
    let mut rng = Rng::at(0xc7);
    let mut above = vec![0i64; SIDE];
    let mut out = Vec::with_capacity(len + 2 * SIDE);
    let mut y = 0;
    while out.len() < len {
        let mut left = 0i64;
        for (x, above) in above.iter_mut().enumerate() {
            let fresh =
                (rng.next() & 0x7f7f_7f7f).to_le_bytes().iter().map(|&b| i64::from(b)).sum::<i64>();
            left = (2 * left + 2 * *above + fresh - 254) / 5;
            *above = left;
            let (dx, dy) = (x as i64 - 256, (y % SIDE) as i64 - 256);
            let sample = match dx * dx + dy * dy {
                62_500.. => 0,
                40_000.. => 24 + left / 4,
                from_centre => 900 + from_centre / 130 + left,
            };
            out.extend_from_slice(&(sample.clamp(0, 4095) as u16).to_le_bytes());
        }
        y += 1;
    }
    out.truncate(len);
    out
}

/// SplitMix64 (Steele, Lea, Flood, OOPSLA 2014).
pub struct Rng(u64);

impl Rng {
    /// A stream of its own for each place.
    pub fn at(place: u64) -> Self {
        let mut rng = Self(place.wrapping_mul(0xd6e8_feb8_6659_fd93));
        rng.next();
        Self(rng.next())
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    /// In 0..1, never 0.
    pub fn unit(&mut self) -> f64 {
        ((self.next() >> 11) + 1) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::{KINDS, Kind, csv};
    use crate::format::codec::{Codec, Encoder};

    #[test]
    fn each_kind_is_stored_by_the_codec_it_stands_for() {
        for (kind, codec) in KINDS.into_iter().zip([Codec::Stored, Codec::Zstd, Codec::Numeric]) {
            let bytes = kind.bytes(512 << 10);
            assert_eq!((bytes.len(), bytes == kind.bytes(512 << 10)), (512 << 10, true));
            let mut out = Vec::new();
            let stored = Encoder::new().encode(&bytes, kind.samples(), &mut out);
            assert_eq!(stored.0, codec, "{kind:?}");
            let share = stored.1.len() * 100 / bytes.len();
            let expected = match kind {
                Kind::Noise => 100..101,
                Kind::Csv => 12..30,
                Kind::Image => 20..40,
            };
            assert!(expected.contains(&share), "{kind:?}: {share} %");
        }
    }

    #[test]
    fn the_next_night_is_a_small_delta() {
        let (old, new) = (csv(256 << 10, false), csv(256 << 10, true));
        assert_ne!(old, new);
        let mut out = Vec::new();
        Encoder::new().encode_delta(&old, &new, &mut out);
        assert!(out.len() * 30 < new.len(), "{}", out.len());
    }
}
