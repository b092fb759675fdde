//! Looking after a repository: is it sound, who has keys, what is kept, what is freed. Each
//! operation stands alone; none imports another.

pub mod check;
pub mod forget;
pub mod hold;
pub mod keys;
pub mod prune;
pub mod repair;
