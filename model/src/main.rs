use std::time::{Duration, Instant};
use stateright::{Checker, Model};
use strongroom_model::{explore::*, config::*, protocol::Protocol, rules::Rule, state::*};

fn feature(config: &mut Config, f: &str) {
    let (k, v) = f.split_once('=').unwrap_or((f, "1"));
    let n = v.parse::<u8>().unwrap_or(0);
    match k {
        "gens" => config.generations = n as usize,
        "pruners" => config.pruners = n as usize,
        "noflicker" => config.flicker = false,
        "nofences" => config.fences = false,
        "reader" => config.reader = true,
        "live" => config.liveness = true,
        "onerun" => config.one_run = true,
        "runsfirst" => config.packs_first = false,
        "midway" => config.midway = true,
        "split" => config.split_lists = true,
        "dups" => config.duplicates = n,
        "merges" => config.merges = true,
        "moves" => config.moves = true,
        "holds" => config.holds = true,
        "deltas" => config.deltas = true,
        "unlooked" => config.unlooked = true,
        "sweep" => config.sweep_sessions = true,
        "damage" => config.damage = n,
        "restarts" => config.restarts = n,
        "forgets" => config.forgets = n,
        "w1" => config.writers[0] = n,
        "w2" => config.writers[1] = n,
        "lists" => config.drop = Drop::Lists,
        "props" => config.drop = Drop::Proposals,
        "packs" => { type P = (&'static [u8], &'static [u8]); let p: P = match v {
            "f0" => (&[FULL_0], &[1]),
            "f0f0" => (&[FULL_0, FULL_0], &[1, 1]),
            "garbage" => (&[FULL_0], &[0]),
            "half" => (&[FULL_0 | FULL_1], &[1]),
            "half2" => (&[FULL_0 | FULL_1, FULL_0], &[3, 1]),
            "two" => (&[FULL_0, FULL_1], &[1, 2]),
            "delta" => (&[FULL_0, DELTA_1], &[1, 2]),
            "mirror" => (&[FULL_0, FULL_1, DELTA_0 | DELTA_1], &[3, 0, 0]),
            "mirror2" => (&[FULL_0 | DELTA_1, FULL_1 | DELTA_0], &[3, 0]),
            _ => panic!("{v}"),
        }; (config.packs, config.snapshots) = p; }
        "off" => { for r in v.split('+') { *config = config.without(*Rule::ALL.iter().find(|x| format!("{x:?}") == r).unwrap()); } }
        x => panic!("{x}"),
    }
}

fn main() {
    let mut config = BASE;
    let mut secs = 20;
    let mut max = 400_000_000;
    let mut own = true;
    for a in std::env::args().skip(1) {
        match a.split_once('=') {
            Some(("secs", v)) => secs = v.parse().unwrap(),
            Some(("max", v)) => max = v.parse().unwrap(),
            _ if a == "trace" => own = false,
            _ => feature(&mut config, &a),
        }
    }
    let t = Instant::now();
    let o = explore(&Protocol { config }, Bounds { time: Duration::from_secs(secs), states_max: max });
    println!("states {} unique {} depth {} complete {} fault {:?} {:?}", o.states, o.unique, o.depth, o.complete, o.fault.as_ref().map(|f| f.1), t.elapsed());
    if let Some((f, _)) = &o.fault { println!("quiesce: {:?}", Protocol { config }.quiesce(f)); }
    if own || o.fault.is_none() { return; }
    let checker = Protocol { config }.checker().finish_when(stateright::HasDiscoveries::Any).spawn_bfs().join();
    for (name, path) in checker.discoveries() {
        println!("COUNTEREXAMPLE {name}");
        for (_, a) in path.into_vec() {
            if let Some(a) = a { println!("  {} {} {} {:b}", a.who, a.number, a.what, a.detail); }
        }
    }
}
