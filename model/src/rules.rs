//! The rules of the protocol. Each is a switch: the tests turn one off at a time and expect a loss
//! (or learn that the others suffice).

macro_rules! rules {
    ($($name:ident: $text:literal),* $(,)?) => {
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Rule { $($name),* }

        impl Rule {
            pub const ALL: &[Rule] = &[$(Rule::$name),*];

            pub fn text(self) -> &'static str {
                match self { $(Rule::$name => $text),* }
            }
        }
    };
}

rules! {
    // Writers
    SessionFirst: "a writer announces its session before it reads",
    ReadsRetired: "packs in undecided proposals and verdicts do not count",
    RetiredBeforePacks: "retired/ is read before packs/ is listed",
    ListsPacks: "an index row counts only if its pack is listed",
    ParentLookedUp: "what a parent hands over is looked up",
    UnlookedNeedsDecided: "a subtree is taken over unlooked only if no proposal was undecided at opening",
    UnlookedNeedsLiving: "… and the parent existed unforgotten after that",
    AdoptedLookedUp: "what a dead session stored is looked up",
    BaseLookedUp: "a delta counts as a copy for a writer only if its base is found in the same way",
    DamagedAbsent: "frames recorded as damaged count as absent for writers",
    SnapshotLast: "packs are durable before their run, runs before the snapshot",
    CommitIfAbsent: "a tombstone fences: the snapshot is put only if its name is free",
    // Records that stay
    TombstonesStay: "tombstones stay",
    ForgottenStays: "forgotten records stay",
    VerdictsStay: "verdicts are never deleted, so a generation's name is never free again",
    RunsForgetPacks: "a verdict's list is dropped only when no index run names its packs",
    DropWhenGone: "a verdict's list is dropped only when all that it names is gone",
    NewestStays: "of a generation nothing is dropped before the next one is decided",
    // Prune
    OneAtATime: "generation n + 1 is proposed only when n is decided",
    StateAfterVerdict: "… on state that was read after verdict n",
    WaitsForOpen: "the verdict waits for sessions that were open after the proposal",
    SessionsAfterProposal: "sessions are listed after the proposal was published",
    OpenSessionsStay: "packs of open sessions are no candidates",
    OpenSessionRecords: "session records are deleted only when the session is closed",
    RetiredReadAgain: "retired/ is listed again for the verdict",
    SecondRead: "snapshots are read again for the verdict",
    UnnamedLives: "for the verdict only those snapshots are dead that the proposal names",
    Rescue: "a live chunk whose every sound copy is proposed is rescued",
    RunRescue: "so is a run that alone names a pack that stays",
    SingleVerdict: "a generation has one verdict; whoever comes second follows it",
    VerdictGone: "what a verdict names counts as gone, even while it is listed",
    DeltaNeedsBase: "a delta counts as a copy only with a full copy of its base",
    BasesLive: "bases of live deltas are live",
    MoveDurable: "moved frames and merged runs are durable before their sources are proposed",
    MergeKeepsRows: "a merged run keeps the rows of all packs that are still there",
    DamagedNoCopy: "damaged frames are no sound copy when prune proposes",
    DamageReadAgain: "damage records are read again for the verdict",
    FencesIdle: "prune fences sessions that are silent for long even when it has nothing to propose",
    // Readers
    ReaderLooksAgain: "a reader that finds a pack or run gone, or nothing at all, looks again",
    ReaderChecksVerdicts: "… and reports damage only if no verdict has come since",
    // Holds
    HoldsReadAgain: "holds are read again for the verdict",
    ForgottenBeforeHolds: "forgotten records are read before holds",
    HoldChecksVerdict: "who adds a hold looks for a verdict on the snapshot afterwards",
    HoldLooksTwice: "… twice, since a listing may miss a dropped proposal and its new verdict",
    HoldWaits: "… and waits while an undecided proposal names it",
}

/// Rules that are on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rules(u64);

impl Rules {
    pub const ALL: Rules = Rules(u64::MAX);

    pub fn without(self, rule: Rule) -> Rules {
        Rules(self.0 & !(1 << rule as u64))
    }

    pub fn has(self, rule: Rule) -> bool {
        self.0 & (1 << rule as u64) != 0
    }
}
