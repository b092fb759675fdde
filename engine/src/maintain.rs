//! Looking after a repository: is it sound, who has keys. Each operation stands alone; none imports another.

pub mod check;
pub mod keys;
