//! Records in and out of the store: signed when written; parsed, checked for rot and verified when read.

use crate::error::{Error, Named, Result};
use crate::format::id::{IdentityId, ObjectHash, PackId, SessionId, hash};
use crate::format::pack::{Directory, SealRow, TRAILER_LEN, Trailer};
use crate::format::record::{Kind, Record};
use crate::format::seal::{Context, Label, Recipient, Sealer, open_body, seal_body};
use crate::format::session::Seals;
use crate::format::slot::Role;
use crate::repo::Repo;
use crate::repo::packer::pack_name;
use crate::store::{ObjectName, Put, StoreError};

/// docs/format.md, section 1: limits.
pub const RECORD_BYTES_MAX: u64 = 64 << 20;
pub const RUN_BYTES_MAX: u64 = 1 << 30;
pub const DIRECTORY_BYTES_MAX: u64 = 256 << 20;

/// A record that was read: parsed, not rotten, and signed by somebody of the roster where its kind asks for it.
#[derive(Debug)]
pub struct Read {
    pub body: Vec<u8>,
    pub author: IdentityId,
    pub role: Role,
    /// H of the stored bytes.
    pub hash: [u8; 32],
    pub stored_bytes: u64,
}

pub fn object_name(name: &str) -> Result<ObjectName> {
    Ok(ObjectName::new(name)?)
}

impl Repo {
    /// Writes a signed record with a stated name. `Put::Existed`: somebody's bytes are there already.
    pub(crate) fn try_put_stated(&self, kind: Kind, name: &str, body: &[u8]) -> Result<(Put, Vec<u8>)> {
        let signers = [(self.identity(), self.roster().number, self.signing())];
        let bytes = Record::build(kind, body, name, &signers, self.id());
        let put = self.store().put_if_absent(&object_name(name)?, &bytes)?;
        Ok((put, bytes))
    }

    /// The same for names that are ours alone: the same bytes may be there from an attempt that failed late.
    pub(crate) fn put_stated(&self, kind: Kind, name: &str, body: &[u8]) -> Result<Vec<u8>> {
        let (put, bytes) = self.try_put_stated(kind, name, body)?;
        if put == Put::Existed && self.get(name, RECORD_BYTES_MAX)? != bytes {
            let cause = "another object has its name".to_owned();
            return Err(Error::Damaged { what: name.to_owned(), cause });
        }
        Ok(bytes)
    }

    /// Seals, signs and writes an index run; its name and stored length.
    pub(crate) fn put_sealed_run(&self, payload: &[u8], epoch: u32) -> Result<(ObjectHash, u64)> {
        let body = self.seal_index_body(Kind::IndexRun, payload, epoch)?;
        let signers = [(self.identity(), self.roster().number, self.signing())];
        let bytes = Record::build(Kind::IndexRun, &body, "index/", &signers, self.id());
        let id = ObjectHash(hash(&bytes));
        self.store().put_if_absent(&object_name(&format!("index/{id}"))?, &bytes)?;
        Ok((id, bytes.len() as u64))
    }

    fn seal_index_body(&self, kind: Kind, payload: &[u8], epoch: u32) -> Result<Vec<u8>> {
        let context = Context {
            suite: self.file().suite,
            recipient: Recipient::Index,
            epoch,
            repository: self.id(),
            session: SessionId([0; 16]),
            salt: self.env().random(),
        };
        Ok(seal_body(&self.index_key(epoch)?, &context, kind, payload))
    }

    pub(crate) fn get(&self, name: &str, bytes_max: u64) -> Result<Vec<u8>> {
        Ok(self.store().get(&object_name(name)?, bytes_max)?)
    }

    /// Reads a record that must carry the signature of a member of the roster.
    pub(crate) fn read(&self, kind: Kind, name: &str, bytes_max: u64) -> Result<Read> {
        let bytes = self.get(name, bytes_max)?;
        self.check(kind, name, &bytes)
    }

    pub(crate) fn check(&self, kind: Kind, name: &str, bytes: &[u8]) -> Result<Read> {
        let record = Record::parse(bytes, kind).named(name)?;
        let stored_hash = hash(bytes);
        if !kind.stated() && !name.ends_with(&ObjectHash(stored_hash).to_string()) {
            let source = crate::error::FormatError::Rot { object: kind.name() };
            return Err(Error::Format { name: name.to_owned(), source });
        }
        let (author, role) = self.verify(&record, kind, name)?;
        let stored_bytes = bytes.len() as u64;
        Ok(Read { body: record.body.to_vec(), author, role, hash: stored_hash, stored_bytes })
    }

    /// Who signed it, and as what. One valid signature of a member is enough.
    fn verify(&self, record: &Record, kind: Kind, name: &str) -> Result<(IdentityId, Role)> {
        let signing_name = kind.signing_name(name);
        let mut cause = "it carries no signature of anyone in the roster";
        for signature in &record.signatures {
            if signature.roster > self.roster().number {
                let what = format!("{name} cites roster {}, the newest here is {}", signature.roster, self.roster().number);
                return Err(Error::Rollback { what });
            }
            let Some(member) = self.roster().identity(&signature.identity) else { continue };
            if !member.may_sign(kind, name) {
                cause = "its author's role or state does not allow it";
                continue;
            }
            match record.verify(signature, self.id(), signing_name, &member.verifying) {
                Ok(()) => return Ok((member.id, member.role)),
                Err(_) => cause = "its signature is false",
            }
        }
        Err(Error::Damaged { what: name.to_owned(), cause: cause.to_owned() })
    }

    /// Opens the sealed body of a record that was read.
    pub(crate) fn open(&self, kind: Kind, name: &str, body: &[u8]) -> Result<(Context, Vec<u8>)> {
        let context = Context::of_body(body).named(name)?;
        if context.repository != self.id() {
            let cause = "it belongs to another repository".to_owned();
            return Err(Error::Damaged { what: name.to_owned(), cause });
        }
        let secret = self.secret(&context)?;
        Ok((context, open_body(&secret, body, kind).named(name)?))
    }

    /// A session's sealed secrets.
    pub(crate) fn seals(&self, session: &SessionId) -> Result<Vec<SealRow>> {
        let name = format!("seals/{session}");
        let read = self.read(Kind::Seals, &name, RECORD_BYTES_MAX)?;
        Ok(Seals::from_cbor(&read.body).named(&name)?.rows())
    }

    /// Reads and opens a pack's directory through its trailer.
    pub(crate) fn pack_directory(&self, pack: &PackId, len: u64) -> Result<Directory> {
        let name = pack_name(pack);
        let damaged = |cause: &str| Error::Damaged { what: name.to_string(), cause: cause.to_owned() };
        if len < TRAILER_LEN as u64 {
            return Err(damaged("it is shorter than a trailer"));
        }
        let mut bytes = [0; TRAILER_LEN];
        self.store().get_range(&name, len - TRAILER_LEN as u64, &mut bytes)?;
        let context = Context::of_body(&bytes).named(name.as_str())?;
        let secret = self.index_key(context.epoch)?;
        let trailer = Trailer::open(&bytes, &secret, &context, len).named(name.as_str())?;
        if trailer.directory_len > DIRECTORY_BYTES_MAX {
            return Err(damaged("its directory is longer than the limit"));
        }
        let end = trailer.directory_offset.checked_add(trailer.directory_len);
        if end.is_none_or(|end| end > len - TRAILER_LEN as u64) || trailer.directory_len < 32 {
            return Err(damaged("its directory lies outside of it"));
        }
        let mut sealed = vec![0; trailer.directory_len as usize];
        self.store().get_range(&name, trailer.directory_offset, &mut sealed)?;
        let (commit, stream) = sealed.split_at(32);
        let commit = commit.try_into().expect("32 bytes");
        let sealer = Sealer::opening(&secret, &context, Label::PackDirectory, commit, "pack directory")
            .named(name.as_str())?;
        let plain = sealer.open_stream(stream, "pack directory").named(name.as_str())?;
        let directory = Directory::from_bytes(&plain).named(name.as_str())?;
        let frames_end = directory.frames.last().map_or(64, |f| f.offset + u64::from(f.stored));
        if frames_end > trailer.frames_end || trailer.frames_end > trailer.directory_offset {
            return Err(damaged("its frames run into its directory"));
        }
        Ok(directory)
    }

    /// Is the object there?
    pub(crate) fn exists(&self, name: &str) -> Result<bool> {
        match self.store().len(&object_name(name)?) {
            Ok(_) => Ok(true),
            Err(StoreError::NotFound { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}
