//! What may go wrong, how often in this seed, and how often it did. Each seed has its own mix: with all faults at once
//! nothing would ever get far enough to be interesting.

use super::rng::Rng;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Fault {
    /// Nothing happens but an error.
    Fail,
    /// The same: no space left.
    Full,
    /// Carried out, but neither durable nor reported: an error is returned.
    AppliedButFailed,
    /// The reply was lost and the store tried again: what was just put is reported as existing.
    Echo,
    /// An error now; the put or delete arrives some time later.
    Late,
    /// Carried out and reported, and arrives once more some time later.
    Twice,
    /// The client's process dies before the call.
    Crash,
    /// The client is not heard of for a while.
    Stall,
    /// The host dies with all clients; what was not durable is lost.
    PowerLoss,
    /// A client's clock jumps, or days pass for all.
    ClockJump,
    /// A client loses its cache folder.
    CacheLost,
    /// After a power loss a file of a client's cache is cut, zeroed or gone.
    CacheTorn,
    /// An object rots: a bit flips, or its end is gone, or all of it.
    Rot,
}

pub const FAULTS: [Fault; 13] = [
    Fault::Fail,
    Fault::Full,
    Fault::AppliedButFailed,
    Fault::Echo,
    Fault::Late,
    Fault::Twice,
    Fault::Crash,
    Fault::Stall,
    Fault::PowerLoss,
    Fault::ClockJump,
    Fault::CacheLost,
    Fault::CacheTorn,
    Fault::Rot,
];

/// How often each fault struck.
pub type Counts = [u64; FAULTS.len()];

/// What kind of call is being made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    Put,
    Stage,
    StageWrite,
    Commit,
    Get,
    GetRange,
    Len,
    List,
    /// The next few names of a listing under way.
    ListMore,
    Delete,
    MakeDurable,
    /// No call: between two operations of a client.
    Between,
}

impl Call {
    fn meets(self, fault: Fault) -> bool {
        let puts = matches!(self, Self::Put | Self::Commit);
        match fault {
            Fault::Fail => self != Self::Between,
            Fault::Full => puts || matches!(self, Self::Stage | Self::StageWrite),
            Fault::AppliedButFailed => puts || matches!(self, Self::Delete | Self::MakeDurable),
            Fault::Echo => puts,
            Fault::Late | Fault::Twice => puts || self == Self::Delete,
            Fault::Crash => self != Self::Between,
            Fault::Stall | Fault::PowerLoss => true,
            Fault::ClockJump | Fault::CacheLost | Fault::Rot => self == Self::Between,
            Fault::CacheTorn => false,
        }
    }
}

/// Rates of one seed, in 10,000 calls.
#[derive(Clone, Debug)]
pub struct Mix {
    rates: [u32; FAULTS.len()],
    /// Struck by plan, once each, in this order.
    plan: Vec<Planned>,
}

/// A fault that strikes the first call of its kind on a name that begins so.
#[derive(Clone, Debug)]
pub struct Planned {
    pub call: Call,
    pub name: &'static str,
    pub fault: Fault,
}

impl Mix {
    pub fn none() -> Self {
        Self { rates: [0; FAULTS.len()], plan: Vec::new() }
    }

    pub fn planned(plan: &[Planned]) -> Self {
        Self { plan: plan.to_vec(), ..Self::none() }
    }

    pub fn is_planned(&self) -> bool {
        !self.plan.is_empty()
    }

    /// Some faults, each with its own rate.
    pub fn draw(rng: &mut Rng) -> Self {
        let mut mix = Self::none();
        // One seed in five is about interleaving alone.
        if rng.chance(2_000) {
            return mix;
        }
        for fault in FAULTS {
            let usual = match fault {
                Fault::Fail | Fault::AppliedButFailed | Fault::Late => 60,
                Fault::Full => 20,
                Fault::Echo | Fault::Twice => 300,
                Fault::Crash => 50,
                Fault::Stall => 60,
                Fault::PowerLoss => 15,
                Fault::ClockJump => 3_000,
                Fault::CacheLost => 500,
                Fault::CacheTorn => 3_000,
                Fault::Rot => 0,
            };
            let factor = *rng.pick(&[0, 0, 1, 1, 3]);
            mix.rates[fault as usize] = usual * factor;
        }
        mix
    }

    pub fn with(mut self, fault: Fault, rate: u32) -> Self {
        self.rates[fault as usize] = rate;
        self
    }

    pub fn rate(&self, fault: Fault) -> u32 {
        self.rates[fault as usize]
    }

    /// What strikes this call, if anything.
    pub fn strike(&mut self, rng: &mut Rng, call: Call, name: &str) -> Option<Fault> {
        if self.plan.first().is_some_and(|next| next.call == call && name.starts_with(next.name)) {
            return Some(self.plan.remove(0).fault);
        }
        let mut left = rng.next() % 10_000;
        for fault in FAULTS {
            // A writer is at its most vulnerable between what it has looked up and what it commits.
            let writes = matches!(call, Call::Stage | Call::Commit | Call::Put);
            let factor = if fault == Fault::Stall && writes { 8 } else { 1 };
            let rate = u64::from(self.rates[fault as usize]) * factor;
            if call.meets(fault) {
                if left < rate {
                    return Some(fault);
                }
                left -= rate;
            }
        }
        None
    }
}
