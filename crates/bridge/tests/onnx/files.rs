use super::{conv_graph, written};
use cardinal_bridge::onnx::{self, Options, check, data_path, decode, export, run};
use cardinal_engine::graph::{Graph, Op, Unary};
use std::fs;

#[test]
fn names_are_kept_and_unique() {
    let mut graph = conv_graph(3, [8, 8]);
    let x = graph.outputs.pop().unwrap();
    let a = graph.push("stem", Op::Unary(Unary::Neg), &[x]).unwrap();
    let b = graph.push("stem", Op::Unary(Unary::Neg), &[a]).unwrap();
    graph.output(b);
    let file =
        written(&graph, &Options { outputs: vec!["logits".into()], ..Options::default() }).graph.unwrap();
    let nodes: Vec<_> = file.node.iter().map(|node| node.name.as_str()).collect();
    assert_eq!(nodes, ["stem.conv/Conv", "stem/Neg", "stem/Neg_1"]);
    assert_eq!(file.initializer[0].name, "stem.conv.weight");
    assert_eq!(file.initializer[0].dims, [4, 3, 3, 3]);
    assert_eq!((file.input[0].name.as_str(), file.output[0].name.as_str()), ("input", "logits"));
    assert_eq!(file.node[2].output, ["logits"]);
    assert_eq!(file.name, "net");
}

#[test]
fn notes_come_back() {
    let options = Options {
        opset: 18,
        metadata: vec![("classes".into(), "[\"cat\",\"dög\"]".into()), ("mean".into(), "[0.5]".into())],
        doc: "a network".into(),
        input_doc: "an image".into(),
        ..Options::default()
    };
    let model = written(&conv_graph(3, [8, 8]), &options);
    let metadata: Vec<_> = model.metadata_props.iter().map(|e| (e.key.clone(), e.value.clone())).collect();
    assert_eq!(metadata, options.metadata);
    assert_eq!((model.producer_name.as_str(), model.doc_string.as_str()), ("cardinal", "a network"));
    assert_eq!(model.opset_import[0].version, 18);
    assert_eq!(model.graph.unwrap().input[0].doc_string, "an image");
}

#[test]
fn weights_lie_in_the_file_or_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("net.onnx");
    let graph = conv_graph(64, [8, 8]);
    let inside = export(&graph, &Options::default()).unwrap();
    let expected = decode(&inside.clone().encode().unwrap()).unwrap();
    let saved = inside.clone().save(&path).unwrap();
    assert_eq!((saved.bytes, saved.data), (fs::metadata(&path).unwrap().len(), None));
    assert_eq!(onnx::read(&path).unwrap(), expected);

    // Over the file that was there.
    let saved = inside.save_external(&path).unwrap();
    let (data, bytes) = saved.data.unwrap();
    assert_eq!((&data, bytes), (&data_path(&path), 4 * 64 * 9 * 4));
    assert!(fs::metadata(&path).unwrap().len() < 1024);
    assert_eq!(onnx::read(&path).unwrap(), expected);
    let mut names: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["net.onnx", "net.onnx.data"]);

    fs::write(&data, [0; 100]).unwrap();
    let error = onnx::read(&path).unwrap_err().to_string();
    assert!(error.contains("stem.conv.weight") && error.contains("net.onnx.data"), "{error}");
    fs::remove_file(&data).unwrap();
    assert!(onnx::read(&path).unwrap_err().to_string().contains("net.onnx.data"));
    fs::write(&path, b"no file of ONNX").unwrap();
    assert!(onnx::read(&path).unwrap_err().to_string().contains("not an ONNX file"));
}

#[test]
fn weights_elsewhere_are_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("net.onnx");
    export(&conv_graph(64, [8, 8]), &Options::default()).unwrap().save_external(&path).unwrap();
    let text = fs::read(&path).unwrap();
    let place = text.windows(13).position(|bytes| bytes == b"net.onnx.data").unwrap();
    let mut elsewhere = text.clone();
    elsewhere[place..place + 13].copy_from_slice(b"../onnx.datas");
    fs::write(&path, elsewhere).unwrap();
    assert!(onnx::read(&path).unwrap_err().to_string().contains("not beside it"));
}

#[test]
fn a_folder_that_is_not_there_is_named() {
    let model = export(&conv_graph(3, [8, 8]), &Options::default()).unwrap();
    let error = model.save("/no such folder/net.onnx".as_ref()).unwrap_err().to_string();
    assert!(error.contains("/no such folder/net.onnx"), "{error}");
}

#[test]
fn what_is_wrong_with_a_file_is_found() {
    let good = written(&conv_graph(3, [8, 8]), &Options::default());
    let refused = |change: &dyn Fn(&mut onnx::proto::GraphProto)| {
        let mut model = good.clone();
        change(model.graph.as_mut().unwrap());
        check::structure(&model).unwrap_err()
    };
    assert!(refused(&|graph| graph.node[0].input[1] = "nothing".into()).contains("writes `nothing`"));
    assert!(refused(&|graph| graph.node.push(graph.node[0].clone())).contains("two nodes"));
    assert!(refused(&|graph| graph.node[0].op_type = "Loop".into()).contains("`Loop`"));
    assert!(refused(&|graph| graph.node[0].domain = "other".into()).contains("`other`"));
    assert!(refused(&|graph| graph.node[0].input.truncate(1)).contains("1 inputs"));
    assert!(refused(&|graph| graph.initializer[0].dims[0] = 5).contains("432 bytes"));
    assert!(refused(&|graph| graph.initializer[0].dims[0] = -4).contains("stem.conv.weight"));
    assert!(refused(&|graph| graph.initializer.push(graph.initializer[0].clone())).contains("two values"));
    assert!(refused(&|graph| graph.output.clear()).contains("no output"));
    assert!(refused(&|graph| graph.output[0].name = "other".into()).contains("`other`"));
    // And a run that finds another shape than the file notes.
    let mut model = good.clone();
    let graph = model.graph.as_mut().unwrap();
    graph.node[0].attribute.iter_mut().find(|a| a.name == "strides").unwrap().ints = vec![1, 1];
    let x = run::Tensor::new([1, 3, 8, 8], vec![0.0; 192]).unwrap();
    assert!(run::evaluate(&model, x, 1).unwrap_err().contains("the file says another"));
}

#[test]
fn an_empty_graph_is_refused() {
    assert!(export(&Graph::new("net"), &Options::default()).is_err());
}
