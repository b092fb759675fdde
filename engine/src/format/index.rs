use crate::error::FormatError;
use crate::format::id::*;
use crate::format::pack::*;
pub struct PackRow { pub id: PackId, pub len: u64, pub author: IdentityId, pub class: PackClass }
#[derive(Debug, Clone)]
pub struct Location { pub pack: PackId, pub pack_index: usize, pub pack_len: u64, pub offset: u64, pub stored: u32, pub plain: u32, pub codec: u8, pub ordinal: u64, pub table_hash: [u8;32], pub context: u32, pub frame: u32, pub bases: u32, pub chunk_offset: u32, pub chunk_len: u32 }
pub struct RunBuilder;
impl RunBuilder { pub fn new()->Self{RunBuilder} pub fn push_pack(&mut self,_:&PackRow,_:&Directory){} pub fn finish(self)->Vec<u8>{vec![]} }
pub struct Run<'a>(&'a [u8]);
impl<'a> Run<'a> { pub fn new(b:&'a [u8])->Result<Self,FormatError>{Ok(Run(b))} pub fn validate(&self)->Result<(),FormatError>{Ok(())}
 pub fn find(&self,_:&ChunkId)->impl Iterator<Item=Location>{ std::iter::empty() } pub fn ids(&self)->impl Iterator<Item=ChunkId>{std::iter::empty()}
 pub fn packs(&self)->impl Iterator<Item=PackRow>{std::iter::empty()} pub fn context(&self,_:u32)->ContextRow{todo!()} pub fn bases(&self,_:u32)->impl Iterator<Item=BaseRow>{std::iter::empty()} }
