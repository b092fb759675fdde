//! What is explored: the configurations, and for each rule the one in which dropping it loses data
//! (or the reason why it does not).

use crate::config::{BASE, Config, Drop, Start};
use crate::rules::Rule;
use crate::state::{DELTA_0, DELTA_1, FULL_0, FULL_1};

const ONE_WRITER: Config = Config { writers: [1, 0], liveness: true, ..BASE };
const HALF_DEAD: Config =
    Config { packs: &[FULL_0 | FULL_1], snapshots: &[1], moves: true, ..ONE_WRITER };
const TWICE: Config = Config { packs: &[FULL_0, FULL_0], snapshots: &[1, 1], ..ONE_WRITER };
const DELTA: Config = Config { packs: &[FULL_0, DELTA_1], snapshots: &[1, 2], ..ONE_WRITER };
const MIRRORED: Config =
    Config { packs: &[FULL_0, FULL_1, DELTA_0 | DELTA_1], snapshots: &[3, 0, 0], ..ONE_WRITER };
const HOLDS: Config = Config { holds: true, ..ONE_WRITER };
const MIDWAY: Config = Config { start: Start::Midway, liveness: true, ..BASE };
const MIDWAY_3: Config = Config { generations: 3, ..MIDWAY };
const SLOW_LIST: Config = Config {
    start: Start::SlowList,
    packs: &[FULL_0, FULL_0],
    snapshots: &[1, 0],
    split_lists: true,
    forgets: 0,
    ..ONE_WRITER
};
/// Deletes are steps of their own, and the lists of old verdicts are dropped, which the protocol as
/// built does not do.
const LISTS_DROPPED: Config =
    Config { drop: Drop::Lists, flicker: false, liveness: false, ..ONE_WRITER };
const ONE_RUN: Config = Config {
    packs: &[FULL_0, FULL_1],
    snapshots: &[1, 2],
    one_run: true,
    generations: 1,
    ..LISTS_DROPPED
};

/// Explored completely in seconds, by `cargo test` and by stateright's own search.
pub const SMALL: &[Config] = &[
    Config { name: "1 writer", ..ONE_WRITER },
    Config { name: "1 writer, 3 generations", generations: 3, ..ONE_WRITER },
    Config { name: "2 writers, 1 pruner", pruners: 1, liveness: true, ..BASE },
    Config { name: "2 writers from midway", generations: 3, ..MIDWAY },
    Config { name: "1 writer, slow list", ..SLOW_LIST },
    Config {
        name: "2 writers from midway, dropped proposals, lists in two steps",
        split_lists: true,
        drop: Drop::Proposals,
        generations: 1,
        ..MIDWAY
    },
    Config {
        name: "1 writer from midway, holds, dropped proposals, lists in two steps",
        split_lists: true,
        drop: Drop::Proposals,
        start: Start::Midway,
        ..HOLDS
    },
    Config { name: "1 writer, deltas", writers: [2, 0], deltas: true, ..DELTA },
    Config { name: "1 writer, merged runs", merges: true, ..ONE_WRITER },
    Config { name: "1 writer, moved frames", generations: 1, ..HALF_DEAD },
    Config { name: "1 writer, adoption", restarts: 1, generations: 1, ..ONE_WRITER },
    Config { name: "1 writer, holds", generations: 1, ..HOLDS },
    Config { name: "1 writer, damage", damage: 1, forgets: 0, generations: 1, ..TWICE },
    Config { name: "1 writer, unlooked parent", unlooked: true, ..ONE_WRITER },
    Config { name: "1 writer, lists in two steps", split_lists: true, ..ONE_WRITER },
    Config { name: "1 writer, dropped proposals", drop: Drop::Proposals, ..ONE_WRITER },
    Config { name: "1 writer, lost answers", lost_answers: true, ..ONE_WRITER },
    Config { name: "1 writer, swept sessions", sweep_sessions: true, generations: 1, ..ONE_WRITER },
    Config { name: "reader, moved frames", writers: [0, 0], forgets: 0, reader: true, ..HALF_DEAD },
    Config {
        name: "1 writer, 1 late put",
        flicker: false,
        duplicates: 1,
        generations: 1,
        ..ONE_WRITER
    },
];

/// Too large for any search; for random runs.
pub const ALL_OF_IT: Config = Config {
    name: "all of it",
    writers: [3, 2],
    restarts: 1,
    generations: 3,
    packs: &[FULL_0 | FULL_1, DELTA_1],
    snapshots: &[1, 2],
    forgets: 2,
    deltas: true,
    moves: true,
    merges: true,
    sweep_sessions: true,
    holds: true,
    split_lists: true,
    drop: Drop::Proposals,
    damage: 1,
    lost_answers: true,
    ..BASE
};

/// Two writers, two pruners and more: minutes to hours, by the binary.
pub const LARGE: &[Config] = &[
    Config { name: "base, 3 generations", generations: 3, forgets: 2, liveness: true, ..BASE },
    Config {
        name: "deltas, 2 generations",
        writers: [3, 2],
        deltas: true,
        liveness: true,
        packs: &[FULL_0, DELTA_1],
        snapshots: &[1, 2],
        ..BASE
    },
    Config {
        name: "deltas, 3 generations",
        writers: [3, 2],
        deltas: true,
        generations: 3,
        packs: &[FULL_0, DELTA_1],
        snapshots: &[1, 2],
        ..BASE
    },
    Config { name: "merged runs", merges: true, generations: 1, ..BASE },
    Config { name: "merged runs, 3 generations", merges: true, generations: 3, ..BASE },
    Config { name: "moved frames", moves: true, packs: &[3], snapshots: &[1], ..BASE },
    Config { name: "mirrored deltas", writers: [3, 0], ..MIRRORED },
    Config { name: "adoption", restarts: 1, liveness: true, ..BASE },
    Config { name: "holds", holds: true, ..BASE },
    Config { name: "damage", damage: 1, packs: &[1, 1], snapshots: &[1, 1], ..BASE },
    Config { name: "unlooked parents", unlooked: true, forgets: 2, ..BASE },
    Config { name: "lists in two steps", split_lists: true, ..BASE },
    Config {
        name: "dropped proposals, lists in two steps",
        split_lists: true,
        drop: Drop::Proposals,
        ..BASE
    },
    Config {
        name: "midway: deltas, 3 generations",
        writers: [1, 3],
        deltas: true,
        packs: &[FULL_0, DELTA_1],
        snapshots: &[1, 2],
        ..MIDWAY_3
    },
    Config { name: "midway: merged runs, 3 generations", merges: true, ..MIDWAY_3 },
    Config {
        name: "midway: moved frames, 3 generations",
        packs: &[FULL_0 | FULL_1],
        snapshots: &[3],
        moves: true,
        ..MIDWAY_3
    },
    Config { name: "midway: adoption, 3 generations", restarts: 1, ..MIDWAY_3 },
    Config { name: "midway: holds, 3 generations", holds: true, ..MIDWAY_3 },
    Config {
        name: "midway: damage, 3 generations",
        damage: 1,
        packs: &[FULL_0, FULL_0],
        snapshots: &[1, 1],
        ..MIDWAY_3
    },
    Config {
        name: "midway: dropped proposals, lists in two steps, 3 generations",
        split_lists: true,
        drop: Drop::Proposals,
        ..MIDWAY_3
    },
    Config { name: "all of it from midway", start: Start::Midway, ..ALL_OF_IT },
    Config { name: "swept sessions", sweep_sessions: true, ..BASE },
    Config { name: "late puts, deletes as steps", flicker: false, duplicates: 2, ..BASE },
    Config { name: "verdict reads runs first", packs_first: false, generations: 3, ..BASE },
    Config { name: "reader", reader: true, forgets: 0, writers: [2, 0], merges: true, ..HALF_DEAD },
    Config { name: "lists of verdicts dropped", writers: [1, 1], ..LISTS_DROPPED },
    Config { name: "lost answers", lost_answers: true, ..BASE },
    ALL_OF_IT,
];

/// Dropping `rule` loses something here.
pub struct Case {
    pub rule: Rule,
    /// Others that must be off too, because each of them alone would save the day.
    pub besides: &'static [Rule],
    pub config: Config,
}

const fn case(rule: Rule, config: Config) -> Case {
    Case { rule, besides: &[], config }
}

pub const NEEDED: &[Case] = &[
    case(Rule::SessionFirst, ONE_WRITER),
    case(Rule::ReadsRetired, ONE_WRITER),
    Case {
        rule: Rule::RetiredBeforePacks,
        besides: &[Rule::NewestStays, Rule::RunsForgetPacks],
        config: ONE_RUN,
    },
    Case {
        rule: Rule::ListsPacks,
        besides: &[Rule::NewestStays, Rule::RunsForgetPacks],
        config: ONE_RUN,
    },
    case(Rule::NewestStays, Config { split_lists: true, drop: Drop::Proposals, ..MIDWAY }),
    Case {
        rule: Rule::DropWhenGone,
        besides: &[Rule::NewestStays, Rule::RunsForgetPacks],
        config: ONE_RUN,
    },
    Case {
        rule: Rule::RunsForgetPacks,
        besides: &[Rule::NewestStays],
        config: Config { duplicates: 1, ..ONE_RUN },
    },
    case(
        Rule::VerdictsStay,
        Config { fences: false, writers: [1, 1], start: Start::Midway, ..LISTS_DROPPED },
    ),
    case(Rule::ParentLookedUp, ONE_WRITER),
    Case {
        rule: Rule::UnlookedNeedsDecided,
        besides: &[Rule::UnnamedLives],
        config: Config { unlooked: true, ..MIDWAY },
    },
    case(Rule::UnlookedNeedsLiving, Config { unlooked: true, ..ONE_WRITER }),
    case(Rule::AdoptedLookedUp, Config { restarts: 1, fences: true, ..ONE_WRITER }),
    case(
        Rule::BaseLookedUp,
        Config { writers: [2, 0], deltas: true, restarts: 1, generations: 1, ..ONE_WRITER },
    ),
    case(Rule::DamagedAbsent, Config { damage: 1, forgets: 0, generations: 1, ..TWICE }),
    case(Rule::SnapshotLast, ONE_WRITER),
    case(Rule::CommitIfAbsent, ONE_WRITER),
    case(Rule::TombstonesStay, ONE_WRITER),
    case(Rule::ForgottenStays, Config { flicker: false, duplicates: 1, ..ONE_WRITER }),
    case(Rule::RetiredReadAgain, SLOW_LIST),
    case(
        Rule::HoldLooksTwice,
        Config { split_lists: true, drop: Drop::Proposals, start: Start::Midway, ..HOLDS },
    ),
    case(Rule::OneAtATime, ONE_WRITER),
    case(Rule::StateAfterVerdict, ONE_WRITER),
    case(Rule::WaitsForOpen, ONE_WRITER),
    case(Rule::SessionsAfterProposal, ONE_WRITER),
    case(Rule::SecondRead, ONE_WRITER),
    case(
        Rule::UnnamedLives,
        Config {
            writers: [0, 0],
            damage: 1,
            forgets: 2,
            holds: true,
            generations: 1,
            liveness: false,
            ..TWICE
        },
    ),
    case(Rule::Rescue, ONE_WRITER),
    case(Rule::RunRescue, Config { merges: true, ..ONE_WRITER }),
    case(Rule::SingleVerdict, MIDWAY),
    case(Rule::VerdictGone, ONE_WRITER),
    case(Rule::DeltaNeedsBase, MIRRORED),
    case(Rule::BasesLive, DELTA),
    Case {
        rule: Rule::MergeKeepsRows,
        besides: &[Rule::RunRescue],
        config: Config { merges: true, writers: [2, 0], ..ONE_WRITER },
    },
    case(Rule::DamageReadAgain, Config { damage: 1, ..TWICE }),
    case(Rule::FencesIdle, ONE_WRITER),
    case(Rule::ReaderLooksAgain, Config { writers: [0, 0], forgets: 0, reader: true, ..HALF_DEAD }),
    case(
        Rule::ReaderChecksVerdicts,
        Config { writers: [0, 0], forgets: 0, reader: true, ..HALF_DEAD },
    ),
    case(Rule::HoldsReadAgain, HOLDS),
    case(Rule::HoldChecksVerdict, HOLDS),
    case(Rule::HoldWaits, HOLDS),
];

/// A rule that the others make superfluous, as far as this configuration shows.
pub struct Spare {
    pub rule: Rule,
    pub why: &'static str,
    pub config: Config,
}

pub const SPARE: &[Spare] = &[
    Spare {
        rule: Rule::RetiredBeforePacks,
        why: "verdicts stay, so what was deleted is named whenever one looks",
        config: ONE_WRITER,
    },
    Spare {
        rule: Rule::ListsPacks,
        why: "verdicts stay; the listing protects against packs that were lost otherwise",
        config: ONE_WRITER,
    },
    Spare {
        rule: Rule::UnlookedNeedsDecided,
        why: "a parent that is forgotten after the proposal counts as live for its verdict",
        config: Config { unlooked: true, generations: 3, ..MIDWAY },
    },
    Spare {
        rule: Rule::OpenSessionsStay,
        why: "the verdict waits for them and rescues; it saves that work",
        config: MIDWAY,
    },
    Spare {
        rule: Rule::OpenSessionRecords,
        why: "the verdict waits for every session that was open when its record was proposed",
        config: Config { sweep_sessions: true, generations: 1, ..ONE_WRITER },
    },
    Spare {
        rule: Rule::MoveDurable,
        why: "what is not there at the verdict saves nothing, so the source is rescued",
        config: Config { generations: 1, ..HALF_DEAD },
    },
    Spare {
        rule: Rule::MergeKeepsRows,
        why: "a run that alone names a pack that stays is rescued; the merge would be in vain",
        config: Config { merges: true, ..ONE_WRITER },
    },
    Spare {
        rule: Rule::DamagedNoCopy,
        why: "damage is read again for the verdict, which rescues the sound copy",
        config: Config { damage: 1, generations: 1, ..TWICE },
    },
    Spare {
        rule: Rule::ForgottenBeforeHolds,
        why: "a hold is promised only if no undecided proposal names the snapshot; the verdict \
              reads holds after that",
        config: Config { generations: 1, ..HOLDS },
    },
];

impl Case {
    pub fn broken(&self) -> Config {
        self.besides.iter().fold(self.config.without(self.rule), |c, &rule| c.without(rule))
    }
}
