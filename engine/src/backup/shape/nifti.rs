//! NIfTI-1 and NIfTI-2 in one file (`.nii`): where the volume begins and how its samples lie. The pair
//! of `.hdr` and `.img`, and extensions of the header, are nothing to this.

use crate::backup::shape::bytes::{Bytes, Order};
use crate::backup::shape::{Region, Shape, samples};

/// What both versions say, each in its own places.
struct Header {
    /// Number of dimensions, then their lengths.
    dims: [u64; 8],
    datatype: u16,
    data_offset: u64,
}

pub fn shape(head: &[u8]) -> Option<Shape> {
    let size = Bytes::little(head).u32(0)?;
    let order = match size {
        348 | 540 => Order::Little,
        _ if matches!(size.swap_bytes(), 348 | 540) => Order::Big,
        _ => return None,
    };
    let bytes = Bytes { all: head, order };
    let header = match bytes.u32(0)? {
        348 => version_1(&bytes)?,
        _ => version_2(&bytes)?,
    };
    let dims = header.dims.get(1..=usize::try_from(header.dims[0]).ok()?)?;
    let columns = *dims.first()?;
    let voxels = dims.iter().try_fold(1u64, |product, &dim| product.checked_mul(dim))?;
    let (width, step) = width_and_step(header.datatype)?;
    let len = voxels.checked_mul(width)?.checked_mul(step)?;
    let samples = (order == Order::Little).then(|| samples(width, step, columns)).flatten();
    let start = header.data_offset;
    let end = start.checked_add(len)?;
    Some(Shape { large: None, start, region: Region::Frames { end, frame: 0, samples } })
}

fn version_1(bytes: &Bytes) -> Option<Header> {
    (&bytes.at(344)? == b"n+1\0").then_some(())?;
    let mut dims = [0; 8];
    for (place, dim) in dims.iter_mut().enumerate() {
        // Signed: a negative one is refused.
        *dim = u64::from(bytes.u16(40 + 2 * place as u64).filter(|&dim| dim < 1 << 15)?);
    }
    let data_offset = f32::from_bits(bytes.u32(108)?);
    // What is negative, no number or too large becomes an offset that no file has.
    (data_offset >= 348.0 && data_offset.fract() == 0.0).then_some(())?;
    Some(Header { dims, datatype: bytes.u16(70)?, data_offset: data_offset as u64 })
}

fn version_2(bytes: &Bytes) -> Option<Header> {
    (&bytes.at(4)? == b"n+2\0\r\n\x1a\n").then_some(())?;
    let mut dims = [0; 8];
    for (place, dim) in dims.iter_mut().enumerate() {
        *dim = bytes.u64(16 + 8 * place as u64)?;
    }
    let data_offset = bytes.u64(168)?;
    (data_offset >= 540).then_some(())?;
    Some(Header { dims, datatype: bytes.u16(12)?, data_offset })
}

/// Bytes of a number and numbers of a voxel.
fn width_and_step(datatype: u16) -> Option<(u64, u64)> {
    Some(match datatype {
        2 | 256 => (1, 1),
        4 | 512 => (2, 1),
        8 | 16 | 768 => (4, 1),
        64 | 1024 | 1280 => (8, 1),
        // Complex numbers, RGB, RGBA.
        32 => (4, 2),
        1792 => (8, 2),
        128 => (1, 3),
        2304 => (1, 4),
        _ => return None,
    })
}
