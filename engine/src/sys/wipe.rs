//! Values whose memory is overwritten when they are dropped, for keys of crates that do not do so
//! themselves. Copies that the compiler made while the value was built are out of reach.

use std::fmt;
use std::mem::{ManuallyDrop, MaybeUninit};
use std::ops::Deref;

use zeroize::Zeroize;

/// Holds a value in one place on the heap, which is zeroed when it is dropped.
pub struct Wiped<T>(Box<ManuallyDrop<T>>);

impl<T> Wiped<T> {
    pub fn new(value: T) -> Self {
        Self(Box::new(ManuallyDrop::new(value)))
    }
}

impl<T> Deref for Wiped<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> fmt::Debug for Wiped<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Wiped(…)")
    }
}

impl<T> Drop for Wiped<T> {
    #[expect(unsafe_code, reason = "no safe way to overwrite a value of a foreign type")]
    fn drop(&mut self) {
        let place: *mut ManuallyDrop<T> = &raw mut *self.0;
        // SAFETY: the value is alive and dropped here only, once; nobody can name it afterwards.
        unsafe { ManuallyDrop::drop(&mut *place) };
        // SAFETY: the box still owns these bytes; as `MaybeUninit<u8>` any content is allowed, and
        // what is written is never read as a `T` again, because the box holds a `ManuallyDrop`.
        let bytes = unsafe {
            std::slice::from_raw_parts_mut(place.cast::<MaybeUninit<u8>>(), size_of::<T>())
        };
        bytes.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::Wiped;

    struct Counts<'c>(&'c Cell<u32>, [u8; 64]);

    impl Drop for Counts<'_> {
        fn drop(&mut self) {
            assert_eq!(self.1, [7; 64], "whole when it is dropped");
            self.0.set(self.0.get() + 1);
        }
    }

    #[test]
    fn a_value_is_dropped_once() {
        let drops = Cell::new(0);
        let value = Wiped::new(Counts(&drops, [7; 64]));
        assert_eq!(value.1[63], 7);
        drop(value);
        assert_eq!(drops.get(), 1);
    }
}
