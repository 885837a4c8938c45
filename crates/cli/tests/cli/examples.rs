//! The examples: each is run as its README says, and what it made is checked against its data, inside a sandbox too.

use std::path::{Path, PathBuf};

use crate::support::{Scene, examples};

/// Examples with what they are given and what they make, in the order in which one needs the other.
const EXAMPLES: &[(&str, &[&str], &[&str])] = &[
    ("csv_chart.py", &["data/grunfeld.csv"], &["investment.png", "firms.csv"]),
    ("excel_report.py", &[], &["us_economy.xlsx"]),
    ("excel_update.py", &["belljar-out/us_economy.xlsx"], &["us_economy_updated.xlsx"]),
    ("pdf_report.py", &[], &["co2_report.pdf"]),
    ("pdf_form.py", &[], &["wine_form.pdf", "form_filled.pdf"]),
    ("word_report.py", &[], &["elnino.docx"]),
    ("slides.py", &[], &["travel.pptx"]),
    ("training_log.py", &[], &["training.log"]),
    ("log_search.sh", &["belljar-out/training.log"], &["levels.txt", "warnings.txt", "worst.txt", "models.txt"]),
];

/// Runs `check.py NAME OUTDIR` with everything it looks at around it.
const CHECK: &str = "import os, runpy, shutil, sys
os.mkdir('data')
shutil.move('grunfeld.csv', 'data')
sys.argv = ['check.py', inputs['name'], '.']
runpy.run_path('check.py', run_name='__main__')
";

/// Runs one example in the scene, and checks what it made.
fn run(scene: &Scene, program: &str) {
    let (_, given, made) = EXAMPLES.iter().find(|(name, ..)| *name == program).unwrap();
    let mut arguments = vec!["run".into(), examples().join(program)];
    for file in *given {
        let path = if file.starts_with("belljar-out") { PathBuf::from(file) } else { examples().join(file) };
        arguments.extend([PathBuf::from("--file"), path]);
    }
    let ended = scene.call(&arguments, "");
    assert_eq!(ended.code(), 0, "{program}: {}{}", ended.text(), ended.stderr);
    for file in *made {
        assert!(ended.stderr.contains(&format!("saved belljar-out/{file} (")), "{program} says that it saved {file}: {}", ended.stderr);
    }
    check(scene, program, given, made);
}

fn check(scene: &Scene, program: &str, given: &[&str], made: &[&str]) {
    let name = Path::new(program).file_stem().unwrap().to_str().unwrap();
    let mut arguments: Vec<PathBuf> = ["run", "-", "--out", "checked", "--input"].map(PathBuf::from).to_vec();
    arguments.push(format!("name=\"{name}\"").into());
    let mut files = vec![examples().join("check.py"), examples().join("data/grunfeld.csv")];
    files.extend(made.iter().map(|file| Path::new("belljar-out").join(file)));
    files.extend(given.iter().filter(|file| file.starts_with("belljar-out")).map(PathBuf::from));
    arguments.extend(files.into_iter().flat_map(|file| [PathBuf::from("--file"), file]));
    let ended = scene.call(&arguments, CHECK);
    let failed: Vec<String> = ended.text().lines().filter(|line| line.starts_with("FAIL")).map(str::to_owned).collect();
    assert!(ended.code() == 0 && failed.is_empty(), "{program}: {failed:#?} {}", ended.stderr);
    assert!(ended.text().ends_with("all hold\n") && ended.text().lines().count() > 3, "{program} is checked: {}", ended.text());
}

#[test]
fn every_example_of_the_readme_is_run_here() {
    let readme = std::fs::read_to_string(examples().join("README.md")).unwrap();
    let rows: Vec<&str> = readme.lines().filter(|line| line.starts_with("| [`")).collect();
    assert_eq!(rows.len(), EXAMPLES.len(), "{rows:#?}");
    for (row, (program, given, made)) in rows.iter().zip(EXAMPLES) {
        assert!(row.contains(&format!("examples/{program}")), "{program} stands in its place: {row}");
        let products = row.split('|').nth(4).unwrap();
        assert!(made.iter().all(|file| products.contains(&format!("`{file}`"))), "{made:?} are in {products}");
        assert_eq!(row.matches("--file ").count(), given.len(), "{row}");
        assert!(given.iter().all(|file| row.contains(&format!("{file}`"))), "{given:?} are in {row}");
    }
}

#[test]
fn csv_chart() {
    run(&Scene::new(), "csv_chart.py");
}

#[test]
fn excel_report_then_update() {
    let scene = Scene::new();
    run(&scene, "excel_report.py");
    run(&scene, "excel_update.py");
}

#[test]
fn pdf_report() {
    run(&Scene::new(), "pdf_report.py");
}

#[test]
fn pdf_form() {
    run(&Scene::new(), "pdf_form.py");
}

#[test]
fn word_report() {
    run(&Scene::new(), "word_report.py");
}

#[test]
fn slides() {
    run(&Scene::new(), "slides.py");
}

#[test]
fn training_log_then_search() {
    let scene = Scene::new();
    run(&scene, "training_log.py");
    run(&scene, "log_search.sh");
}
