//! `strongroom-model [--minutes N] [--states N] [--only TEXT]`: explores the configurations of the
//! catalogue and prints a table. `strongroom-model --without RULE`: prints the shortest way to a
//! loss without that rule.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use stateright::{Checker, HasDiscoveries, Model};
use strongroom_model::catalogue::{LARGE, NEEDED, SMALL};
use strongroom_model::config::Config;
use strongroom_model::explore::{Bounds, explore, walk};
use strongroom_model::protocol::Protocol;
use strongroom_model::rules::Rule;

fn main() -> ExitCode {
    let mut minutes = 2.0;
    let mut states_max = 100_000_000;
    let mut seed = None;
    let mut off = None;
    let mut only = String::new();
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let value = args.next().unwrap_or_default();
        match arg.as_str() {
            "--minutes" => minutes = value.parse().expect("--minutes takes a number"),
            "--states" => states_max = value.parse().expect("--states takes a number"),
            "--walk" => seed = Some(value.parse().expect("--walk takes a seed")),
            "--off" => off = Rule::ALL.iter().find(|r| format!("{r:?}") == value).copied(),
            "--only" => only = value,
            "--without" => return without(&value),
            "--trace" => {
                let config = SMALL.iter().chain(LARGE).find(|c| c.name == value);
                show(*config.expect("--trace takes the name of a configuration"));
                return ExitCode::SUCCESS;
            }
            _ => {
                eprintln!(
                    "--minutes N (each), --states N (at most, each), --only TEXT, --without RULE, --trace NAME"
                );
                return ExitCode::from(2);
            }
        }
    }
    let bounds = Bounds { time: Duration::from_secs_f64(minutes * 60.0), states_max };
    println!("| configuration | steps | states | depth | complete | minutes | verdict |");
    println!("|---|---|---|---|---|---|---|");
    let mut fine = true;
    for config in SMALL.iter().chain(LARGE).filter(|c| c.name.contains(&only)) {
        let begin = Instant::now();
        let config = off.map_or(*config, |rule| config.without(rule));
        let protocol = Protocol { config };
        let outcome = match seed {
            Some(seed) => walk(&protocol, bounds, seed),
            None => explore(&protocol, bounds),
        };
        let verdict = outcome.fault.as_ref().map_or("holds", |(_, property)| property);
        fine &= outcome.fault.is_none();
        outcome
            .way
            .iter()
            .filter(|_| outcome.fault.is_some())
            .for_each(|step| println!("  {step}"));
        println!(
            "| {} | {} | {} | {} | {} | {:.1} | {verdict} |",
            config.name,
            outcome.steps,
            outcome.states,
            outcome.depth,
            if outcome.complete { "yes" } else { "no" },
            begin.elapsed().as_secs_f64() / 60.0,
        );
    }
    if fine { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn without(rule: &str) -> ExitCode {
    let Some(case) = NEEDED.iter().find(|case| format!("{:?}", case.rule) == rule) else {
        for case in NEEDED {
            println!("{:?}: {}", case.rule, case.rule.text());
        }
        return ExitCode::from(2);
    };
    println!("Without \"{}\":", case.rule.text());
    show(case.broken());
    ExitCode::SUCCESS
}

/// Prints a shortest way to a fault. stateright keeps paths, so this is for where one is near.
fn show(config: Config) {
    let checker = Protocol { config }.checker();
    let checker = checker.finish_when(HasDiscoveries::Any).spawn_bfs().join();
    for (property, path) in checker.discoveries() {
        println!("this fails: {property}");
        for step in path.into_actions() {
            println!("  {step}");
        }
    }
}
