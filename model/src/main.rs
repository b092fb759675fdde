use std::time::{Duration, Instant};
use stateright::{Checker, Model};
use strongroom_model::{explore::*, config::*, protocol::Protocol, rules::Rule};

fn main() {
    let mut config = BASE;
    let mut args = std::env::args().skip(1);
    let mut secs = 20;
    let mut own = false;
    while let Some(a) = args.next() {
        let mut v = || args.next().unwrap();
        match a.as_str() {
            "--gens" => config.generations = v().parse().unwrap(),
            "--pruners" => config.pruners = v().parse().unwrap(),
            "--secs" => secs = v().parse().unwrap(),
            "--off" => { let r = v(); config = config.without(*Rule::ALL.iter().find(|x| format!("{x:?}") == r).unwrap()); }
            "--own" => own = true,
            "--noflicker" => config.flicker = false,
            "--split" => config.split_lists = true,
            "--dups" => config.duplicates = v().parse().unwrap(),
            "--merges" => config.merges = true,
            "--moves" => config.moves = true,
            "--holds" => config.holds = true,
            "--restarts" => config.restarts = v().parse().unwrap(),
            "--forgets" => config.forgets = v().parse().unwrap(),
            "--w2" => config.writers[1] = v().parse().unwrap(),
            "--lists" => config.drop = Drop::Lists,
            "--props" => config.drop = Drop::Proposals,
            x => panic!("{x}"),
        }
    }
    let t = Instant::now();
    if own {
        let o = explore(&Protocol { config }, Bounds { time: Duration::from_secs(secs), states_max: 400_000_000, liveness_every: 0 });
        println!("states {} unique {} depth {} complete {} loss {} {:?}", o.states, o.unique, o.depth, o.complete, o.loss.is_some(), t.elapsed());
        return;
    }
    let checker = Protocol { config }.checker().timeout(Duration::from_secs(secs)).spawn_bfs().join();
    println!("{:?} states {} unique {} depth {} done {} {:?}", config.name, checker.state_count(), checker.unique_state_count(), checker.max_depth(), checker.is_done(), t.elapsed());
    for (name, path) in checker.discoveries() {
        println!("COUNTEREXAMPLE {name}");
        for (_, a) in path.into_vec() {
            if let Some(a) = a { println!("  {} {} {} {:b}", a.who, a.number, a.what, a.detail); }
        }
    }
}
