//! What the numbers were measured on.

use std::fs;
use std::path::Path;

use rustix::fs::statfs;

pub struct Machine {
    pub cpu: String,
    pub cores: usize,
    pub memory_gib: u64,
    pub kernel: String,
    /// File system of the work folder.
    pub work_on: String,
}

/// Describes this machine; what cannot be found out is "unknown".
pub fn describe(work: &Path) -> Machine {
    let first = |file: &str, key: &str| {
        let text = fs::read_to_string(file).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(key)).map(str::to_owned);
        line.and_then(|line| Some(line.split_once(':')?.1.trim().to_owned()))
    };
    let memory_kib = first("/proc/meminfo", "MemTotal")
        .and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok());
    Machine {
        cpu: first("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown".to_owned()),
        cores: std::thread::available_parallelism().map_or(0, usize::from),
        memory_gib: memory_kib.map_or(0, |kib| kib.div_ceil(1 << 20)),
        kernel: fs::read_to_string("/proc/sys/kernel/osrelease")
            .map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned()),
        work_on: file_system(work),
    }
}

fn file_system(folder: &Path) -> String {
    match statfs(folder).map(|stat| stat.f_type as u32) {
        Ok(0x0102_1994) => "tmpfs".to_owned(),
        Ok(0xef53) => "disk (ext4)".to_owned(),
        Ok(0x5846_5342) => "disk (xfs)".to_owned(),
        Ok(0x9123_683e) => "disk (btrfs)".to_owned(),
        Ok(0x794c_7630) => "overlayfs".to_owned(),
        Ok(other) => format!("file system {other:#x}"),
        Err(_) => "unknown".to_owned(),
    }
}
