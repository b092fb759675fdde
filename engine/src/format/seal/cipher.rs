//! One AEAD key. AES-256-GCM and ChaCha20-Poly1305 are aws-lc-rs's, except for AES on a CPU with
//! wide AES instructions but without AVX-512: there ring is 1.7 times as fast
//! (`docs/decisions/0011-two-crates-for-aes.md`). Both make the same bytes.

use aws_lc_rs::aead as aws;
use ring::aead as ring;

use super::{Suite, TAG_LEN};
use crate::sys::wipe::Wiped;

/// `Sync`: worker threads share it.
pub enum Cipher {
    Aws(aws::LessSafeKey),
    Ring(Wiped<ring::LessSafeKey>),
}

/// What was to be opened is not what was sealed.
#[derive(Debug)]
pub struct Altered;

impl Cipher {
    pub fn new(suite: Suite, key: &[u8; 32]) -> Cipher {
        match suite {
            Suite::Aes256Gcm if ring_is_faster() => Self::ring(key),
            Suite::Aes256Gcm => Self::aws(&aws::AES_256_GCM, key),
            Suite::ChaCha20Poly1305 => Self::aws(&aws::CHACHA20_POLY1305, key),
        }
    }

    fn aws(algorithm: &'static aws::Algorithm, key: &[u8; 32]) -> Cipher {
        let key = aws::UnboundKey::new(algorithm, key).expect("32 bytes");
        Cipher::Aws(aws::LessSafeKey::new(key))
    }

    fn ring(key: &[u8; 32]) -> Cipher {
        let key = ring::UnboundKey::new(&ring::AES_256_GCM, key).expect("32 bytes");
        Cipher::Ring(Wiped::new(ring::LessSafeKey::new(key)))
    }

    /// Encrypts `buf` and returns the tag. A nonce must never be used twice.
    pub fn seal(&self, nonce: [u8; 12], aad: &[u8], buf: &mut [u8]) -> [u8; TAG_LEN] {
        let fits = "lengths are far below the limits of the AEADs";
        let tag: Option<[u8; TAG_LEN]> = match self {
            Cipher::Aws(key) => {
                let nonce = aws::Nonce::assume_unique_for_key(nonce);
                let tag = key.seal_in_place_separate_tag(nonce, aws::Aad::from(aad), buf);
                tag.expect(fits).as_ref().try_into().ok()
            }
            Cipher::Ring(key) => {
                let nonce = ring::Nonce::assume_unique_for_key(nonce);
                let tag = key.seal_in_place_separate_tag(nonce, ring::Aad::from(aad), buf);
                tag.expect(fits).as_ref().try_into().ok()
            }
        };
        tag.expect("a tag has 16 bytes")
    }

    /// Decrypts ciphertext and tag; the plain bytes are a prefix of `buf`.
    pub fn open<'a>(
        &self,
        nonce: [u8; 12],
        aad: &[u8],
        buf: &'a mut [u8],
    ) -> Result<&'a mut [u8], Altered> {
        match self {
            Cipher::Aws(key) => {
                let nonce = aws::Nonce::assume_unique_for_key(nonce);
                key.open_in_place(nonce, aws::Aad::from(aad), buf).map_err(|_| Altered)
            }
            Cipher::Ring(key) => {
                let nonce = ring::Nonce::assume_unique_for_key(nonce);
                key.open_in_place(nonce, ring::Aad::from(aad), buf).map_err(|_| Altered)
            }
        }
    }
}

/// ring has AES-GCM for AVX2 with VAES and VPCLMULQDQ, aws-lc for AVX-512 and for 128-bit AES-NI.
#[cfg(target_arch = "x86_64")]
fn ring_is_faster() -> bool {
    let wide = is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("vaes")
        && is_x86_feature_detected!("vpclmulqdq");
    let wider = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl");
    wide && !wider
}

#[cfg(not(target_arch = "x86_64"))]
fn ring_is_faster() -> bool {
    false
}

#[cfg(test)]
mod tests {
    use aes_gcm::aead::AeadInOut;
    use aes_gcm::{Aes256Gcm, KeyInit};

    use super::{Cipher, TAG_LEN, aws};

    fn sample(len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        blake3::Hasher::new().update(&len.to_le_bytes()).finalize_xof().fill(&mut bytes);
        bytes
    }

    #[test]
    fn both_crates_and_a_third_make_the_same_bytes() {
        let (key, nonce) = ([0x5a; 32], [9, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]);
        let ciphers = [Cipher::aws(&aws::AES_256_GCM, &key), Cipher::ring(&key)];
        let third = Aes256Gcm::new(&key.into());
        // Around every width that a vector unit may take at once, and where counters carry.
        let lens = (0..300).chain([511, 512, 1023, 1024, 1025, 4095, 65_536, 65_537, 1 << 20]);
        for len in lens {
            let (plain, aad) = (sample(len), sample(len % 83));
            let mut expected = plain.clone();
            let tag =
                third.encrypt_inout_detached(&nonce.into(), &aad, expected.as_mut_slice().into());
            expected.extend_from_slice(&tag.expect("sealed"));
            for cipher in &ciphers {
                let mut sealed = plain.clone();
                let tag = cipher.seal(nonce, &aad, &mut sealed);
                sealed.extend_from_slice(&tag);
                assert!(sealed == expected, "{len} bytes");
                for opener in &ciphers {
                    let mut buf = sealed.clone();
                    let opened = opener.open(nonce, &aad, &mut buf).expect("unaltered");
                    assert!(opened == plain, "{len} bytes");
                }
            }
        }
    }

    #[test]
    fn what_was_altered_does_not_open() {
        let (key, nonce) = ([1; 32], [0; 12]);
        for cipher in [Cipher::aws(&aws::AES_256_GCM, &key), Cipher::ring(&key)] {
            for len in [0, 1, 100, 5000] {
                let mut sealed = sample(len);
                let tag = cipher.seal(nonce, b"rows", &mut sealed);
                sealed.extend_from_slice(&tag);
                for at in (0..len + TAG_LEN).step_by(7) {
                    let mut bad = sealed.clone();
                    bad[at] ^= 0x10;
                    assert!(cipher.open(nonce, b"rows", &mut bad).is_err(), "byte {at} of {len}");
                }
                assert!(cipher.open(nonce, b"row", &mut sealed.clone()).is_err());
                assert!(cipher.open([1; 12], b"rows", &mut sealed.clone()).is_err());
                let short = sealed.len() - 1;
                assert!(cipher.open(nonce, b"rows", &mut sealed[..short]).is_err());
            }
        }
    }
}
