//! What a run of the built binary left: its exit code and what it said.

use serde_json::Value;

pub struct Done {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Done {
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    /// The lines of `--json` that are of this type.
    #[track_caller]
    pub fn objects(&self, kind: &str) -> Vec<Value> {
        let parse = |line: &str| {
            serde_json::from_str(line).unwrap_or_else(|error| panic!("no JSON, {error}: {line}"))
        };
        let objects = self.stdout.lines().map(parse);
        objects.filter(|object: &Value| object["type"] == kind).collect()
    }
}
