//! Seeded corpora: the same kind, size and seed give the same bytes on every machine (integer
//! arithmetic only). They stand in for clinical data where real data cannot be shipped; they claim
//! to be like it in entropy, sizes and structure, not in meaning.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::dicom;

/// Rows that differ on the second night: one in this many.
const ROWS_PER_CHANGE: u64 = 100;
/// Rows that are appended on the second night: one for this many.
const ROWS_PER_APPEND: u64 = 500;
/// Bytes of a CSV row on average, which turns a size into a row count.
const ROW_BYTES: u64 = 108;
const INCOMPRESSIBLE_FILES: u64 = 4;
/// Of each file of a tiny source.
const TINY_BYTES: usize = 2 << 10;
const SMALL_BYTES_MIN: u64 = 1 << 10;
const SMALL_BYTES_MAX: u64 = 16 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// Four files of random bytes, as archives and encrypted exports are.
    Incompressible,
    /// The same in one file.
    OneFile,
    /// Tables of an EDC export.
    Csv,
    /// The same tables a night later: 1 % of the rows changed, 0.2 % appended.
    CsvNight2,
    /// The tables in one ZIP, deflated as EDC systems do; the size is that of the tables.
    Zip,
    /// The ZIP a night later.
    ZipNight2,
    /// CT slices, 512 × 512 × 16 bit, as DICOM Part 10 files.
    Ct,
    /// The same slices exported again: other file names, UIDs and subject, private elements before
    /// the pixel data.
    CtReexport,
    /// Files of 1 to 16 KiB of XML and notes in nested folders.
    Small,
    /// Three small files whatever size is asked for: what a command costs in any case.
    Tiny,
}

impl Kind {
    /// The same source later.
    pub fn next(self) -> Option<Kind> {
        match self {
            Kind::Csv => Some(Kind::CsvNight2),
            Kind::Zip => Some(Kind::ZipNight2),
            Kind::Ct => Some(Kind::CtReexport),
            _ => None,
        }
    }
}

/// What to generate. `size_bytes` is met to within one file or a few percent.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    pub kind: Kind,
    pub size_bytes: u64,
    pub seed: u64,
}

/// Writes the corpus into `folder`, which is created; files that are there are overwritten.
pub fn generate(spec: Spec, folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    match spec.kind {
        Kind::Incompressible => incompressible(spec, folder, INCOMPRESSIBLE_FILES),
        Kind::OneFile => incompressible(spec, folder, 1),
        Kind::Csv => csv(spec, folder, 1),
        Kind::CsvNight2 => csv(spec, folder, 2),
        Kind::Zip => zip(spec, folder, 1),
        Kind::ZipNight2 => zip(spec, folder, 2),
        Kind::Ct => ct(spec, folder, false),
        Kind::CtReexport => ct(spec, folder, true),
        Kind::Small => small(spec, folder),
        Kind::Tiny => tiny(spec, folder),
    }
}

/// SplitMix64 (Steele, Lea, Flood, OOPSLA 2014): enough randomness for data, at memory speed.
pub struct Rng(u64);

impl Rng {
    /// An own stream for each pair of seed and place.
    pub fn at(seed: u64, place: u64) -> Rng {
        let mut rng = Rng(seed ^ place.wrapping_mul(0xd6e8_feb8_6659_fd93));
        rng.next();
        Rng(rng.next())
    }

    #[expect(clippy::should_implement_trait, reason = "an endless stream of numbers, no iterator")]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in `0..bound`; the bias is below 2^-32 for the bounds used here.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    pub fn pick<'a>(&mut self, words: &[&'a str]) -> &'a str {
        words[self.below(words.len() as u64) as usize]
    }
}

fn create(path: PathBuf) -> io::Result<BufWriter<File>> {
    Ok(BufWriter::with_capacity(1 << 20, File::create(path)?))
}

fn incompressible(spec: Spec, folder: &Path, files: u64) -> io::Result<()> {
    for file in 0..files {
        let mut rng = Rng::at(spec.seed, file);
        let mut out = create(folder.join(format!("archive-{file}.bin")))?;
        for _ in 0..spec.size_bytes / files / 8 {
            out.write_all(&rng.next().to_le_bytes())?;
        }
        out.flush()?;
    }
    Ok(())
}

/// Tables of an export with the share of the rows, in percent, that each has.
const TABLES: [(&str, u64); 4] = [("LB", 45), ("VS", 35), ("AE", 15), ("DM", 5)];

fn csv(spec: Spec, folder: &Path, night: u64) -> io::Result<()> {
    let rows_total = spec.size_bytes / ROW_BYTES;
    for (table, (name, percent)) in TABLES.iter().enumerate() {
        let rows = (rows_total * percent / 100).max(1);
        let mut out = create(folder.join(format!("{name}.csv")))?;
        out.write_all(CSV_HEAD.as_bytes())?;
        let appended = if night == 2 { rows / ROWS_PER_APPEND } else { 0 };
        for row in 0..rows + appended {
            let place = (table as u64) << 40 | row;
            let changed =
                night == 2 && Rng::at(spec.seed ^ 0x6e32, place).below(ROWS_PER_CHANGE) == 0;
            write_row(&mut out, name, row, Rng::at(spec.seed, place), changed)?;
        }
        out.flush()?;
    }
    Ok(())
}

/// One `export.zip`; every entry has the same time, so that equal tables give equal bytes.
fn zip(spec: Spec, folder: &Path, night: u64) -> io::Result<()> {
    let tables = folder.join("tables");
    fs::create_dir_all(&tables)?;
    csv(spec, &tables, night)?;
    let mut out = zip::ZipWriter::new(create(folder.join("export.zip"))?);
    let deflated = zip::write::SimpleFileOptions::default()
        .compression_method(zip::CompressionMethod::Deflated)
        .last_modified_time(zip::DateTime::default());
    for (name, _) in TABLES {
        let name = format!("{name}.csv");
        out.start_file(&name, deflated).map_err(io::Error::other)?;
        io::copy(&mut File::open(tables.join(&name))?, &mut out)?;
    }
    out.finish().map_err(io::Error::other)?.flush()?;
    fs::remove_dir_all(tables)
}

const CSV_HEAD: &str =
    "STUDYID,SITEID,USUBJID,VISIT,VISITDAT,FORM,TESTCD,ORRES,ORRESU,STATUS,UPDATED,BY\n";
const TESTS: [(&str, &str); 8] = [
    ("SYSBP", "mmHg"),
    ("DIABP", "mmHg"),
    ("PULSE", "beats/min"),
    ("ALT", "U/L"),
    ("AST", "U/L"),
    ("HGB", "g/dL"),
    ("GLUC", "mmol/L"),
    ("CREAT", "umol/L"),
];

/// One row; `changed` edits result, status and time stamp as a correction in an EDC system does.
fn write_row(
    out: &mut impl Write,
    form: &str,
    row: u64,
    mut rng: Rng,
    changed: bool,
) -> io::Result<()> {
    let subject = row / 60;
    let site = subject % 37;
    let (test, unit) = TESTS[(row % 8) as usize];
    let (month, day) = (1 + rng.below(12), 1 + rng.below(28));
    let mut result = 500 + rng.below(1200);
    let mut status = rng.pick(&["VERIFIED", "COMPLETE", "COMPLETE", "COMPLETE", "OPEN"]);
    let mut second = rng.below(86_400);
    let mut updated_day = 1 + rng.below(28);
    let by = rng.pick(&["jmeier", "asmith", "kwong", "lrossi", "monitor2", "import"]);
    if changed {
        (result, status) = (500 + rng.below(1200), "CORRECTED");
        (second, updated_day) = (rng.below(86_400), 29);
    }
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    writeln!(
        out,
        "STR-2026-01,{site:03},STR-{site:03}-{subject:05},VISIT {},2026-{month:02}-{day:02},{form},\
         {test},{}.{},{unit},{status},2026-11-{updated_day:02}T{hour:02}:{minute:02}:{second:02}Z,{by}",
        row / 8 % 7 + 1,
        result / 10,
        result % 10,
    )
}

fn ct(spec: Spec, folder: &Path, again: bool) -> io::Result<()> {
    let slices = ((spec.size_bytes + dicom::SLICE_BYTES / 2) / dicom::SLICE_BYTES).max(1);
    for number in 0..slices {
        let series = number / dicom::SLICES_PER_SERIES;
        let slice = number % dicom::SLICES_PER_SERIES;
        let (folder, name) = if again {
            (folder.join(format!("reader-2/{series:03}")), format!("IM{number:06}.dcm"))
        } else {
            (folder.join(format!("series-{series:03}")), format!("{slice:04}.dcm"))
        };
        fs::create_dir_all(&folder)?;
        let mut out = create(folder.join(name))?;
        dicom::write_slice(&mut out, dicom::Slice { seed: spec.seed, series, slice, again })?;
        out.flush()?;
    }
    Ok(())
}

fn small(spec: Spec, folder: &Path) -> io::Result<()> {
    let count = (spec.size_bytes * 2 / (SMALL_BYTES_MIN + SMALL_BYTES_MAX)).max(1);
    for file in 0..count {
        let mut rng = Rng::at(spec.seed, file);
        let subject = file / 24;
        let folder = folder.join(format!("site-{:02}/subject-{subject:05}", subject % 23));
        fs::create_dir_all(&folder)?;
        let bytes = SMALL_BYTES_MIN + rng.below(SMALL_BYTES_MAX - SMALL_BYTES_MIN);
        let extension = rng.pick(&["xml", "xml", "txt"]);
        let mut text =
            format!("<?xml version=\"1.0\"?>\n<SubjectData SubjectKey=\"{subject:05}\">\n");
        while (text.len() as u64) < bytes {
            push_item(&mut text, &mut rng);
        }
        text.truncate(bytes as usize);
        fs::write(folder.join(format!("form-{:02}.{extension}", file % 24)), text)?;
    }
    Ok(())
}

fn tiny(spec: Spec, folder: &Path) -> io::Result<()> {
    for file in 0..3 {
        let mut rng = Rng::at(spec.seed, file);
        let mut text = String::new();
        while text.len() < TINY_BYTES {
            push_item(&mut text, &mut rng);
        }
        fs::write(folder.join(format!("note-{file}.xml")), text)?;
    }
    Ok(())
}

fn push_item(text: &mut String, rng: &mut Rng) {
    let (test, unit) = TESTS[rng.below(8) as usize];
    let word =
        rng.pick(&["repeat sample", "fasting", "not done", "see query", "confirmed by site"]);
    let (value, query) = (rng.below(2000), rng.below(100_000));
    text.push_str(&format!(
        "  <ItemData ItemOID=\"I.{test}\" Value=\"{value}\" Unit=\"{unit}\"/>\
         <Note Query=\"{query:05}\">{word}</Note>\n"
    ));
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::fs;
    use std::path::Path;

    use super::{Kind, Spec, generate};
    use crate::{dicom, tree};

    const MIB: u64 = 1 << 20;

    fn spec(kind: Kind) -> Spec {
        Spec { kind, size_bytes: 2 * MIB, seed: 7 }
    }

    fn rows(folder: &Path) -> Vec<String> {
        let read = |name| fs::read_to_string(folder.join(name)).expect("a table");
        ["LB.csv", "VS.csv", "AE.csv", "DM.csv"]
            .into_iter()
            .flat_map(|name| read(name).lines().map(str::to_owned).collect::<Vec<_>>())
            .collect()
    }

    #[test]
    fn corpora_are_the_same_bytes_everywhere() {
        for (kind, golden) in [
            (Kind::Incompressible, "a069d3b7d443ab76"),
            (Kind::OneFile, "e880dd2a03c600d9"),
            (Kind::Csv, "dca8c0a8ad9bfb22"),
            (Kind::CsvNight2, "4037120f90df5197"),
            (Kind::Ct, "7ea2177e237bf761"),
            (Kind::CtReexport, "78924fe8d529dd79"),
            (Kind::Small, "01d692be230ce822"),
            (Kind::Tiny, "be10fc98e5cc01fa"),
        ] {
            let folder = tempfile::tempdir().expect("a folder");
            generate(spec(kind), folder.path()).expect("generated");
            let tree = tree::summary(folder.path()).expect("read");
            let off = tree.bytes.abs_diff(if kind == Kind::Tiny { 6 << 10 } else { 2 * MIB });
            assert!(off < MIB / 5, "{kind:?} is {off} bytes off its size");
            assert_eq!(&tree.digest.to_hex()[..16], golden, "{kind:?}");
        }
    }

    #[test]
    fn another_seed_gives_other_bytes() {
        let digest = |seed| {
            let folder = tempfile::tempdir().expect("a folder");
            let spec = Spec { kind: Kind::Small, size_bytes: MIB / 4, seed };
            generate(spec, folder.path()).expect("generated");
            tree::summary(folder.path()).expect("read").digest
        };
        assert_ne!(digest(1), digest(2));
    }

    #[test]
    fn the_second_night_changes_one_row_in_a_hundred() {
        let (one, two) = (tempfile::tempdir().expect("one"), tempfile::tempdir().expect("two"));
        generate(spec(Kind::Csv), one.path()).expect("generated");
        generate(spec(Kind::CsvNight2), two.path()).expect("generated");
        let (before, after) = (rows(one.path()), rows(two.path()));
        let known: HashSet<&String> = before.iter().collect();
        let new = after.iter().filter(|row| !known.contains(row)).count();
        let appended = after.len() - before.len();
        assert!(appended * 600 > before.len(), "only {appended} rows were appended");
        let permille = (new - appended) * 1000 / before.len();
        assert!((8..=12).contains(&permille), "{permille} per mille of the rows changed");
    }

    #[test]
    fn a_zip_holds_the_tables_of_its_night() {
        for (zipped, plain) in [(Kind::Zip, Kind::Csv), (Kind::ZipNight2, Kind::CsvNight2)] {
            let (one, two) = (tempfile::tempdir().expect("one"), tempfile::tempdir().expect("two"));
            generate(spec(zipped), one.path()).expect("generated");
            generate(spec(plain), two.path()).expect("generated");
            let file = fs::File::open(one.path().join("export.zip")).expect("is there");
            assert!(file.metadata().expect("stat").len() < MIB, "it is deflated");
            let mut archive = zip::ZipArchive::new(file).expect("a ZIP");
            assert_eq!(archive.len(), 4);
            for at in 0..archive.len() {
                let mut entry = archive.by_index(at).expect("an entry");
                let name = entry.name().expect("UTF-8").into_owned();
                let mut text = String::new();
                std::io::Read::read_to_string(&mut entry, &mut text).expect("inflates");
                let table = fs::read_to_string(two.path().join(&name)).expect("a table");
                assert!(text == table, "{name}");
            }
            assert_eq!(fs::read_dir(one.path()).expect("listed").count(), 1);
        }
    }

    /// Header and pixel data of a slice.
    fn slice(kind: Kind, name: &str) -> (Vec<u8>, Vec<u8>) {
        let folder = tempfile::tempdir().expect("a folder");
        generate(spec(kind), folder.path()).expect("generated");
        let path = folder.path().join(name);
        assert!(dicom::is_native_16_bit(&path).expect("read"));
        let mut header = fs::read(path).expect("a slice");
        let pixels = [0xe0, 0x7f, 0x10, 0x00, b'O', b'W', 0, 0, 0, 0, 8, 0];
        let at = header.windows(12).position(|w| w == pixels).expect("pixel data");
        let pixels = header.split_off(at + 12);
        (header, pixels)
    }

    #[test]
    fn slices_are_dicom() {
        let (header, pixels) = slice(Kind::Ct, "series-000/0001.dcm");
        assert_eq!(&header[..128], &[0; 128]);
        assert_eq!(&header[128..132], b"DICM");
        assert_eq!(pixels.len(), 512 * 512 * 2);
    }

    #[test]
    fn what_is_exported_again_has_the_same_pixels_elsewhere() {
        let (header, pixels) = slice(Kind::Ct, "series-000/0001.dcm");
        let (header_again, pixels_again) = slice(Kind::CtReexport, "reader-2/000/IM000001.dcm");
        assert!(pixels == pixels_again);
        assert!(header_again.len() > header.len() + 50, "{}", header_again.len());
    }

    #[test]
    fn only_native_16_bit_dicom_is_taken_for_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("file");
        let (mut file, _) = slice(Kind::Ct, "series-000/0001.dcm");
        let check = |bytes: &[u8], expected| {
            fs::write(&path, bytes).expect("written");
            assert_eq!(dicom::is_native_16_bit(&path).expect("read"), expected);
        };
        check(&file, true);
        check(&file[..100], false);
        check(b"STUDYID,SITEID,USUBJID", false);
        let at = |bytes: &[u8], what: &[u8]| {
            bytes.windows(what.len()).position(|window| window == what).expect("is there")
        };
        let bits = at(&file, b"\x28\x00\x00\x01US\x02\x00") + 8;
        file[bits] = 8;
        check(&file, false);
        file[bits] = 16;
        let syntax = at(&file, b"1.2.840.10008.1.2.1") + 18;
        file[syntax] = b'5';
        check(&file, false);
    }
}
