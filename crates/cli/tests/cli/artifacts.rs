//! Files in, files and pictures out.

use serde_json::json;

use crate::support::Scene;

#[test]
fn new_files_are_saved_with_size_type_and_digest() {
    let scene = Scene::new();
    let execution = scene.python_json("import os\nos.makedirs('reports/2024')\nopen('reports/2024/sales.csv', 'w').write('a,b\\n1,2\\n')\nopen('ü name.txt', 'wb').write(b'')\nopen('data.bin', 'wb').write(bytes(range(256)));");
    let facts: Vec<_> = execution.0["artifacts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|artifact| {
            (
                artifact["path"].as_str().unwrap(),
                artifact["sizeBytes"].as_u64().unwrap(),
                artifact["mediaType"].as_str().unwrap(),
                artifact["sha256"].as_str().unwrap(),
            )
        })
        .collect();
    let expected = [
        ("data.bin", 256, "application/octet-stream", "40aff2e9d2d8922e47afd4648e6967497158785fbd1da870e7110266bf944880"),
        ("reports/2024/sales.csv", 8, "text/csv", "492d5ea496056f1a6a6592241032fab764c321596317930b4fa0e1e8bc3b7470"),
        ("ü name.txt", 0, "text/plain", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
    ];
    assert_eq!(facts, expected);
    assert_eq!(execution.0["artifacts"][1]["url"], "belljar-out/reports/2024/sales.csv");
    assert_eq!(scene.saved("reports/2024/sales.csv"), b"a,b\n1,2\n");
    assert_eq!(scene.saved("data.bin"), (0..=255).collect::<Vec<u8>>());
    assert_eq!(scene.saved("ü name.txt"), b"");
}

#[test]
fn uploads_are_there_and_come_back_only_when_changed() {
    let scene = Scene::new();
    scene.write("in/kept.csv", "same");
    scene.write("in/changed.csv", "old");
    scene.write("in/rewritten.csv", "even");
    scene.write("in/name with ü.csv", "odd");
    scene.write("in/empty.bin", "");
    let files = ["in/kept.csv", "in/changed.csv", "in/rewritten.csv", "in/name with ü.csv", "in/empty.bin"];
    let mut arguments = vec!["run", "--json", "-"];
    files.iter().for_each(|file| arguments.extend(["--file", file]));
    let code = "import os\nprint(sorted(os.listdir('/mnt/data')))\nprint(open('/mnt/data/kept.csv').read(), open('name with ü.csv').read())\nopen('changed.csv', 'a').write('er')\nopen('rewritten.csv', 'w').write('odds')\nopen('new.csv', 'w').write('');";
    let execution = scene.call(arguments, code).execution();
    execution.prints("['changed.csv', 'empty.bin', 'kept.csv', 'name with ü.csv', 'rewritten.csv']\nsame odd\n");
    assert_eq!(execution.artifacts(), ["changed.csv", "new.csv", "rewritten.csv"], "{}", execution.0);
    assert_eq!(scene.saved("changed.csv"), b"older");
    assert_eq!(std::fs::read(scene.path("in/changed.csv")).unwrap(), b"old", "the file outside is as it was");
}

#[test]
fn a_large_upload_arrives_whole() {
    let scene = Scene::new();
    let content: Vec<u8> = (0..20_000_000_u32).map(|number| number.to_le_bytes()[usize::from(number % 3 == 0)]).collect();
    scene.write("large.bin", &content);
    let ended = scene.call(["run", "-", "--file", "large.bin"], "data = open('large.bin', 'rb').read()\nprint(len(data))\nopen('copy.bin', 'wb').write(data);");
    ended.prints("20000000\n");
    assert!(scene.saved("copy.bin") == content, "the copy is the same");
    let execution = scene.python_json("open('large.bin', 'wb').write(bytes(16 * 1024 * 1024 + 1));");
    assert_eq!(execution.0["artifacts"][0]["sha256"], json!(null), "no digest above 16 MiB");
}

#[test]
fn nothing_made_means_no_folder() {
    let scene = Scene::new();
    scene.python("import os\nopen('gone', 'w').write('x')\nos.remove('gone')\nos.mkdir('empty')\nos.symlink('/etc/passwd', 'link')\nos.mkfifo('pipe')\nopen('/tmp/x', 'w').write('x');").prints("");
    assert_eq!(scene.files(), Vec::<String>::new());
}

#[test]
fn the_output_folder_is_chosen_and_keeps_what_stands_there() {
    let scene = Scene::new();
    scene.write("results/other.txt", "stays");
    scene.write("results/made.txt", "old");
    let ended = scene.call(["run", "-", "--out", "results"], "open('made.txt', 'w').write('new');");
    ended.prints("");
    assert_eq!(ended.stderr, "saved results/made.txt (text/plain, 3 bytes)\n");
    assert_eq!(std::fs::read(scene.path("results/made.txt")).unwrap(), b"new");
    assert_eq!(std::fs::read(scene.path("results/other.txt")).unwrap(), b"stays");
    scene.call(["run", "-", "--out", "deep/er/folder"], "open('a/b.txt'.replace('/', '-'), 'w').write('new');").prints("");
    assert_eq!(scene.files(), ["deep", "deep/er", "deep/er/folder", "deep/er/folder/a-b.txt", "results", "results/made.txt", "results/other.txt"]);
}

#[test]
fn files_of_code_that_failed_are_saved_too() {
    let scene = Scene::new();
    assert_eq!(scene.python("open('partial.txt', 'w').write('x')\n1/0").code(), 1);
    assert_eq!(scene.saved("partial.txt"), b"x");
    assert_eq!(scene.shell("echo y > partial-2.txt; exit 1").code(), 1);
    assert_eq!(scene.saved("partial-2.txt"), b"y\n");
    assert_eq!(scene.python("import os\nwith open('partial-3.txt', 'w') as file: file.write('z')\nos._exit(1)").code(), 1);
    assert_eq!(scene.saved("partial-3.txt"), b"z");
}

#[test]
fn figures_are_captured_without_show_and_saved() {
    let scene = Scene::new();
    let code = "import matplotlib.pyplot as plt\nplt.plot([1, 2, 3])\nplt.figure()\nplt.plot([3, 2, 1])";
    let execution = scene.python_json(code);
    assert_eq!(execution.shown(), ["image/png", "image/png"], "{}", execution.0);
    let names: Vec<&str> = execution.0["outputs"].as_array().unwrap().iter().map(|output| output["name"].as_str().unwrap()).collect();
    for (number, name) in names.iter().enumerate() {
        assert!(scene.saved(name).starts_with(b"\x89PNG\r\n"), "figure {number} is a picture in `{name}`");
        assert!(execution.0["outputs"][number]["data"].as_str().unwrap().starts_with("iVBORw0KGgo"), "and base64 in the object");
    }
    let shown = scene.python("import matplotlib.pyplot as plt\nplt.plot([1])\nplt.show()\nprint('after')");
    assert_eq!(shown.text(), "after\n", "{}", shown.stderr);
    assert_eq!(shown.stderr.matches("(image/png)").count(), 1, "shown once: {}", shown.stderr);
}

#[test]
fn a_figure_and_a_file_of_one_name_are_both_kept() {
    let scene = Scene::new();
    let execution = scene.python_json("import matplotlib.pyplot as plt\nopen('figure-1.png', 'w').write('a file')\nplt.plot([1, 2]);");
    assert_eq!(scene.saved("figure-1.png"), b"a file");
    let name = execution.0["outputs"][0]["name"].as_str().unwrap();
    assert_ne!(name, "figure-1.png", "the object names the file that the picture is in");
    assert!(scene.saved(name).starts_with(b"\x89PNG\r\n"), "{name}");
}

#[test]
fn plotly_and_tables_are_shown() {
    let scene = Scene::new();
    let execution = scene.python_json("import plotly.graph_objects as go\ngo.Figure(go.Bar(x=['a', 'b'], y=[1, 2]))");
    assert_eq!(execution.shown(), ["application/vnd.plotly.v1+json"], "{}", execution.0);
    let name = execution.0["outputs"][0]["name"].as_str().unwrap();
    let drawing: serde_json::Value = serde_json::from_slice(&scene.saved(name)).unwrap();
    assert_eq!(drawing["data"][0]["type"], "bar", "{drawing}");

    let execution = scene.python_json("import pandas as pd\npd.DataFrame({'a': [1, 2], 'b': ['x', 'y']})");
    assert_eq!(execution.0["result"]["text"], "   a  b\n0  1  x\n1  2  y");
    assert_eq!(execution.0["result"]["json"], json!([{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]));
    assert_eq!((execution.shown(), execution.0["outputs"][0]["name"].as_str()), (vec!["text/html"], Some("output-1.html")));
    assert!(execution.0["outputs"][0]["data"].as_str().unwrap().contains("<table"), "{}", execution.0);
    scene.python("import pandas as pd\nprint(pd.DataFrame({'a': [1]}))\npd.Series([1.5])").prints("   a\n0  1\n0    1.5\ndtype: float64\n");
}

#[test]
fn displays_stand_between_what_is_printed_around_them() {
    let scene = Scene::new();
    scene.python("print('before')\ndisplay('shown')\nprint('after')").prints("before\n'shown'\nafter\n");
    scene.python("from IPython.display import display, Markdown\nprint('a')\ndisplay(3)\nprint('b')\ndisplay({'k': 1})").prints("a\n3\nb\n{'k': 1}\n");
}
