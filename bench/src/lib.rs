//! Strongroom's measuring bench: `corpus` (with `dicom`) generates what is backed up, `tools` says
//! how each tool is called, `child` runs and measures one command, `e2e` plays all cases with all
//! tools, `series` backs up real exports day after day, `report` and `series_report` write down what came out and
//! `machine` where. Depends on the engine only for its kernels; end to end, Strongroom is a child
//! process like its rivals.

pub mod child;
pub mod corpus;
pub mod dicom;
pub mod e2e;
pub mod machine;
pub mod report;
pub mod series;
pub mod series_report;
pub mod tools;
pub mod tree;
