//! Codecs: each one's decoder on hostile bytes, and whatever is encoded comes back, however wrong
//! the hint. The first byte says which.

use strongroom::format::codec::{Codec, Decoder, Encoder, Predictor, Samples};
use zstd::zstd_safe::compress;

use super::input::Input;

const PLAIN_MAX: usize = 1 << 21;
const PREDICTORS: [Predictor; 4] =
    [Predictor::None, Predictor::Left, Predictor::Average, Predictor::Median];

/// Lives on from input to input, as it does in use.
#[derive(Default)]
pub struct Codecs {
    encoder: Option<Encoder>,
    decoder: Decoder,
    encoded: Vec<u8>,
    buffer: Vec<u8>,
    out: Vec<u8>,
}

impl Codecs {
    pub fn run(&mut self, bytes: &[u8]) {
        let mut input = Input(bytes);
        match input.below(6) {
            0 => self.decode(input.byte() % 5, &mut input),
            1 => self.decode(Codec::Numeric as u8, &mut input),
            2 => self.decode(Codec::Delta as u8, &mut input),
            3 => self.hostile_planes(&mut input),
            4 => self.encode_as_told(&mut input),
            _ => self.encode_with_any_hint(&mut input),
        }
    }

    /// Never more bytes than claimed, never fewer.
    fn decode(&mut self, codec: u8, input: &mut Input<'_>) {
        let plain_len = input.number() % PLAIN_MAX;
        let bases = if codec == Codec::Delta as u8 { 1 + input.below(3) } else { input.below(2) };
        let cuts: Vec<usize> = (0..bases).map(|_| input.below(200)).collect();
        let mut rest = input.0;
        let mut ranges = Vec::new();
        for cut in cuts {
            let (base, behind) = rest.split_at(cut.min(rest.len()));
            ranges.push(base);
            rest = behind;
        }
        self.check(codec, rest, plain_len, &ranges);
    }

    /// Codec 2 behind a frame of zstd that is sound: header and counts as the input says.
    fn hostile_planes(&mut self, input: &mut Input<'_>) {
        let predictor = input.byte();
        let mut header = vec![input.byte() % 10, 0, predictor % 5, input.byte(), input.byte(), 0];
        header.extend([input.byte(), 0]);
        if predictor % 5 >= 2 {
            for _ in 0..5 {
                header.extend([input.byte(), 0, 0, if input.byte() == 9 { 0xFF } else { 0 }]);
            }
        }
        let mut frame = vec![0; input.0.len() + 1000];
        let len = compress(frame.as_mut_slice(), input.0, 1).expect("room");
        header.extend(&frame[..len]);
        self.check(Codec::Numeric as u8, &header, input.0.len(), &[]);
    }

    fn encode_as_told(&mut self, input: &mut Input<'_>) {
        let predictor = PREDICTORS[input.below(4)];
        let (samples, lead) = (hint(input), input.byte() % 9);
        let plain = plain(input);
        let encoder = self.encoder.get_or_insert_with(|| Encoder::new());
        let told = encoder.encode_numeric(samples, predictor, lead, &plain, &mut self.encoded);
        if told.is_some() {
            self.comes_back(Codec::Numeric, &plain);
        }
    }

    fn encode_with_any_hint(&mut self, input: &mut Input<'_>) {
        let samples = (input.below(4) > 0).then(|| hint(input));
        let plain = plain(input);
        let encoder = self.encoder.get_or_insert_with(|| Encoder::new());
        let (codec, encoded) = encoder.encode(&plain, samples, &mut self.buffer);
        assert!(encoded.len() <= plain.len(), "stored in more than it takes");
        self.encoded = encoded.to_vec();
        self.comes_back(codec, &plain);
    }

    fn comes_back(&mut self, codec: Codec, plain: &[u8]) {
        let len = plain.len() as u32;
        let done = self.decoder.decode(codec as u8, &self.encoded, len, &[], &mut self.out);
        assert_eq!(done, Ok(()));
        assert!(self.out == plain, "not what went in");
    }

    fn check(&mut self, codec: u8, encoded: &[u8], plain_len: usize, bases: &[&[u8]]) {
        let done = self.decoder.decode(codec, encoded, plain_len as u32, bases, &mut self.out);
        assert_eq!(self.out.len(), if done.is_ok() { plain_len } else { 0 });
    }
}

fn hint(input: &mut Input<'_>) -> Samples {
    let width = match input.byte() {
        byte @ 0..=15 => 1 << (byte % 4),
        _ => input.number() as u16,
    };
    let row = if input.below(2) == 0 { input.byte().into() } else { input.number() as u16 };
    Samples { width, step: input.byte() % 6, row }
}

/// What is left of the input, over and over with some drift, so that long frames take few bytes.
fn plain(input: &mut Input<'_>) -> Vec<u8> {
    let (times, drift) = (1 << (input.byte() % 11), input.byte());
    let bytes = input.0;
    (0..times)
        .flat_map(|round: usize| {
            bytes.iter().map(move |byte| byte.wrapping_add(drift.wrapping_mul(round as u8)))
        })
        .take(PLAIN_MAX)
        .collect()
}
