//! Records in and out of the store: signed when written; parsed, checked for rot and verified when read.

use crate::error::{Error, FormatError, Named, Result};
use crate::format::id::{IdentityId, ObjectHash, PackId, SessionId, from_hex, hash};
use crate::format::index::Run;
use crate::format::pack::{Directory, SealRow, TRAILER_LEN, Trailer};
use crate::format::record::{Kind, Record, check_rot};
use crate::format::roster::{Identity, Roster, State};
use crate::format::seal::{
    COMMIT_LEN, CONTEXT_LEN, Context, Label, Recipient, Sealer, body_header, frame_nonce,
    open_body, seal_body,
};
use crate::format::session::{SealedSecret, Seals};
use crate::format::slot::Role;
use crate::repo::Repo;
use crate::repo::opening::newest_roster;
use crate::repo::packer::pack_name;
use crate::repo::session::FRAME_RECIPIENTS;
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

/// Was the object that was asked for not there?
pub(crate) fn is_not_found(error: &Error) -> bool {
    matches!(error, Error::Store(StoreError::NotFound { .. }))
}

pub fn object_name(name: &str) -> Result<ObjectName> {
    Ok(ObjectName::new(name)?)
}

impl Repo {
    /// Writes a signed record with a stated name. `Put::Existed`: somebody's bytes are there already.
    pub(crate) fn try_put_stated(
        &self,
        kind: Kind,
        name: &str,
        body: &[u8],
    ) -> Result<(Put, Vec<u8>)> {
        let bytes = self.signed(kind, body, name);
        let put = self.put(name, &bytes)?;
        Ok((put, bytes))
    }

    /// Durable whatever comes out: what existed already, say from an attempt whose answer was lost, was only visible.
    fn put(&self, name: &str, bytes: &[u8]) -> Result<Put> {
        let name = object_name(name)?;
        let put = self.store().put_if_absent(&name, bytes)?;
        if put == Put::Existed {
            self.store().make_durable(&mut std::iter::once(&name))?;
        }
        Ok(put)
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
        let bytes = self.signed(Kind::IndexRun, &body, "index/");
        let id = ObjectHash(hash(&bytes));
        self.put(&format!("index/{id}"), &bytes)?;
        Ok((id, bytes.len() as u64))
    }

    pub(super) fn signed(&self, kind: Kind, body: &[u8], name: &str) -> Vec<u8> {
        let signers = [(self.identity(), self.roster().number, self.signing())];
        Record::build(kind, body, name, &signers, self.id())
    }

    /// The sealed body of a control record.
    pub(crate) fn seal_record(&self, kind: Kind, payload: &[u8]) -> Result<Vec<u8>> {
        self.seal_index_body(kind, payload, self.roster().epoch().number)
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
        // First of all: a version or kind that rotted must not pass for a newer one.
        check_rot(name, bytes).named(name)?;
        let record = Record::parse(bytes, &[kind]).named(name)?;
        let (author, role) = self.verify(&record, name)?;
        let (body, stored_bytes) = (record.body.to_vec(), bytes.len() as u64);
        Ok(Read { body, author, role, hash: hash(bytes), stored_bytes })
    }

    /// Who signed it, and as what. One valid signature of a member is enough.
    fn verify(&self, record: &Record, name: &str) -> Result<(IdentityId, Role)> {
        let mut cause = "it carries no signature of anyone in the roster";
        for signature in &record.signatures {
            let fresh = self.roster_beyond(signature.roster, name)?;
            let roster = fresh.as_ref().unwrap_or(self.roster());
            let Some(member) = roster.identity(signature.identity) else { continue };
            if !may_sign(member, record.kind, name) {
                cause = "its author's role or state does not allow it";
                continue;
            }
            match record.verify(self.id(), name, member.id, &member.verifying) {
                Ok(_) => return Ok((member.id, member.role)),
                Err(_) => cause = "its signature is false",
            }
        }
        Err(Error::Damaged { what: name.to_owned(), cause: cause.to_owned() })
    }

    /// A signature may cite a roster that came after this repository was opened: then the chain is read again. One that
    /// is not in it even so was made by somebody who has seen more than the store shows.
    fn roster_beyond(&self, cited: u32, name: &str) -> Result<Option<Roster>> {
        if self.rosters.contains(&cited) {
            return Ok(None);
        }
        let now = newest_roster(&**self.store(), self.bundle())?;
        let (newest, _) = now.newest;
        if !now.valid.contains(&cited) {
            let number = newest.number;
            let what = format!("{name} cites roster {cited}; the newest here is {number}");
            return Err(Error::Rollback { what });
        }
        Ok(Some(newest))
    }

    /// Opens the sealed body of a record that was read.
    pub(crate) fn open_sealed(
        &self,
        kind: Kind,
        name: &str,
        body: &[u8],
    ) -> Result<(Context, Vec<u8>)> {
        let (context, _, _) = body_header(body, kind).named(name)?;
        if context.repository != self.id() {
            let cause = "it belongs to another repository".to_owned();
            return Err(Error::Damaged { what: name.to_owned(), cause });
        }
        let secret = self.secret(&context)?;
        open_body(body, kind, |_| Ok(secret)).named(name)
    }

    /// A session's sealed secrets.
    pub(crate) fn seals(&self, session: &SessionId) -> Result<Vec<SealRow>> {
        let name = format!("seals/{session}");
        let read = self.read(Kind::Seals, &name, RECORD_BYTES_MAX)?;
        let seals = Seals::from_cbor(&read.body).named(&name)?;
        let row = |secret: SealedSecret| SealRow {
            recipient: secret.recipient.code(),
            epoch: secret.epoch,
            session: seals.session,
            sealed: secret.sealed.try_into().expect("its length was checked"),
        };
        Ok(seals.secrets.into_iter().map(row).collect())
    }

    /// A session's sealed secrets as its packs have them: where `seals/<session>` is lost. Looks into pack after pack.
    pub(crate) fn seals_in_packs(&self, session: &SessionId) -> Result<Option<Vec<SealRow>>> {
        let mut packs: Vec<(PackId, u64)> = Vec::new();
        self.store().list("packs", &mut |name, len| {
            packs.extend(from_hex(name.last()).map(|id| (PackId(id), len)));
        })?;
        let mut found: Vec<SealRow> = Vec::new();
        // Its own packs first; then those that its frames may have been moved to.
        for moved in [false, true] {
            for (pack, len) in &packs {
                // A pack of names has no seal of references, and the other way round.
                if found.len() == FRAME_RECIPIENTS.len() || (moved && !found.is_empty()) {
                    break;
                }
                let is_own = self.pack_session(pack, *len).is_ok_and(|of| of == Some(*session));
                if is_own == moved {
                    continue;
                }
                let Ok(directory) = self.pack_directory(pack, *len) else { continue };
                for row in directory.seals.into_iter().filter(|row| row.session == *session) {
                    if !found.contains(&row) {
                        found.push(row);
                    }
                }
            }
        }
        Ok(if found.is_empty() { None } else { Some(found) })
    }

    /// Reads and opens a pack's directory through its trailer.
    pub(crate) fn pack_directory(&self, pack: &PackId, len: u64) -> Result<Directory> {
        let name = pack_name(pack);
        let damaged =
            |cause: &str| Error::Damaged { what: name.to_string(), cause: cause.to_owned() };
        if len < TRAILER_LEN as u64 {
            return Err(damaged("it is shorter than a trailer"));
        }
        let mut bytes = [0; TRAILER_LEN];
        self.store().get_range(&name, len - TRAILER_LEN as u64, &mut bytes)?;
        let (context, trailer) = self.open_trailer(&mut bytes, len).named(name.as_str())?;
        let secret = self.index_key(context.epoch)?;
        if trailer.directory_len > DIRECTORY_BYTES_MAX {
            return Err(damaged("its directory is longer than the limit"));
        }
        let mut sealed = vec![0; trailer.directory_len as usize];
        self.store().get_range(&name, trailer.directory_offset, &mut sealed)?;
        let (commit, stream) = sealed.split_at(32);
        let commit = commit.try_into().expect("32 bytes");
        let sealer =
            Sealer::opening(&secret, &context, Label::PackDirectory, commit, "pack directory")
                .named(name.as_str())?;
        let plain = sealer.open_stream(stream, "pack directory").named(name.as_str())?;
        let directory = Directory::from_bytes(&plain).named(name.as_str())?;
        directory.check_against(&trailer).named(name.as_str())?;
        Ok(directory)
    }

    /// The trailer of a pack of `len` bytes, and the context that its directory is sealed with too.
    fn open_trailer(
        &self,
        bytes: &mut [u8; TRAILER_LEN],
        len: u64,
    ) -> Result<(Context, Trailer), FormatError> {
        let object = "pack trailer";
        let (context, rest) = bytes.split_at_mut(CONTEXT_LEN);
        let (commit, sealed) = rest.split_at_mut(COMMIT_LEN);
        let context = Context::from_bytes(&context.try_into().expect("72 bytes"))?;
        let no_key = |_| FormatError::Commitment { object };
        let secret = self.index_key(context.epoch).map_err(no_key)?;
        let commit = &*commit;
        let commit = commit.try_into().expect("32 bytes");
        let sealer = Sealer::opening(&secret, &context, Label::PackTrailer, commit, object)?;
        let aad = trailer_aad(&sealer, len);
        let plain = sealer.open_in_place(frame_nonce(0), &aad, sealed, object)?;
        Ok((context, Trailer::from_bytes(plain, len)?))
    }

    /// Makes every index run that is visible durable: another writer's may not be yet.
    pub(crate) fn make_index_durable(&self) -> Result<()> {
        self.make_folder_durable("index")
    }

    /// The same for all that is visible in a folder.
    pub(crate) fn make_folder_durable(&self, folder: &str) -> Result<()> {
        let mut names = Vec::new();
        self.store().list(folder, &mut |name, _| names.push(name))?;
        Ok(self.store().make_durable(&mut names.iter())?)
    }

    pub(crate) fn delete(&self, name: &str) -> Result<()> {
        Ok(self.store().delete(&object_name(name)?)?)
    }

    /// Is a run that we wrote there as we wrote it, for us and all others to open?
    pub(crate) fn read_back_run(&self, id: &ObjectHash) -> Result<()> {
        let name = format!("index/{id}");
        let read = self.read(Kind::IndexRun, &name, RUN_BYTES_MAX)?;
        let (_, payload) = self.open_sealed(Kind::IndexRun, &name, &read.body)?;
        Run::new(&payload).and_then(|run| run.validate()).named(&name)
    }

    /// The session whose pack this is, as its trailer says. `None`: the trailer does not open.
    pub(crate) fn pack_session(&self, pack: &PackId, len: u64) -> Result<Option<SessionId>> {
        if len < TRAILER_LEN as u64 {
            return Ok(None);
        }
        let mut bytes = [0; TRAILER_LEN];
        match self.store().get_range(&pack_name(pack), len - TRAILER_LEN as u64, &mut bytes) {
            Err(StoreError::NotFound { .. } | StoreError::Truncated { .. }) => return Ok(None),
            read => read?,
        }
        Ok(self.open_trailer(&mut bytes, len).ok().map(|(context, _)| context.session))
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

/// Associated data of a pack's trailer: it belongs to a pack of this length.
pub(super) fn trailer_aad(sealer: &Sealer, pack_len: u64) -> Vec<u8> {
    [sealer.context_hash().as_slice(), &pack_len.to_le_bytes()].concat()
}

/// Who may sign what (docs/format.md, 2). A revoked identity's sessions count only if they are among those kept.
fn may_sign(member: &Identity, kind: Kind, name: &str) -> bool {
    let by_role = match kind {
        Kind::Snapshot => member.role.writes(),
        // Admins move frames and merge runs.
        Kind::Session | Kind::Seals | Kind::IndexRun => {
            member.role.writes() || member.role == Role::Admin
        }
        Kind::Damage => true,
        Kind::Attestation => member.role.holds().content,
        Kind::Tombstone
        | Kind::Forgotten
        | Kind::Hold
        | Kind::Release
        | Kind::Proposal
        | Kind::Verdict => matches!(member.role, Role::Admin | Role::Owner),
        _ => false,
    };
    let kept = || {
        let session = name.rsplit('/').next().and_then(SessionId::from_hex);
        let kept = member.sessions_kept.as_deref().unwrap_or_default();
        kind == Kind::IndexRun || session.is_some_and(|session| kept.contains(&session))
    };
    by_role && (member.state == State::Active || kept())
}
