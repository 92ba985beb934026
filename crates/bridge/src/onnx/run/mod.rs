//! Computes a file: what its nodes mean by ONNX's specification, node by node, without a look at the graph that it was
//! written from. Slow, but for convolutions and matrix products, which the engine's kernels compute.

mod maps;
mod tensor;

pub use tensor::Tensor;

use super::proto::tensor_shape_proto::dimension;
use super::proto::{AttributeProto, ModelProto, NodeProto, ValueInfoProto, type_proto};
use std::collections::HashMap;
use std::sync::Arc;

/// Why a node cannot be computed.
type Result<T> = std::result::Result<T, String>;

/// Computes the outputs of a file that passed [`super::check::structure`], for `input` as its only input. Compares the
/// shape of every value on the way with what the file notes of it.
///
/// # Errors
///
/// A node that does not take its inputs, or a value of another shape than the file says; with the name.
pub fn evaluate(model: &ModelProto, input: Tensor, threads: usize) -> Result<Vec<Tensor>> {
    let graph = model.graph.as_ref().ok_or("the file has no graph")?;
    let [given] = graph.input.as_slice() else {
        return Err(format!("{} inputs instead of one", graph.input.len()));
    };
    let described = graph.input.iter().chain(&graph.output).chain(&graph.value_info);
    let notes: HashMap<_, _> = described.map(|info| (info.name.as_str(), info)).collect();
    let mut values = HashMap::new();
    for tensor in &graph.initializer {
        values.insert(tensor.name.as_str(), Arc::new(Tensor::decode(tensor)?));
    }
    let mut symbols = HashMap::new();
    agree(given, &input, &mut symbols)?;
    values.insert(given.name.as_str(), Arc::new(input));
    // Maps are dropped after their last reader.
    let last: HashMap<_, _> = graph
        .node
        .iter()
        .enumerate()
        .flat_map(|(i, node)| node.input.iter().map(move |name| (name.as_str(), i)))
        .collect();
    for (index, node) in graph.node.iter().enumerate() {
        let of = |name: &String| match (name.is_empty(), values.get(name.as_str())) {
            (true, _) => Ok(None),
            (false, Some(value)) => Ok(Some(Arc::clone(value))),
            (false, None) => Err(format!("{}: nothing before it writes `{name}`", node.name)),
        };
        let inputs = node.input.iter().map(of).collect::<Result<Vec<_>>>()?;
        let outputs =
            Call { node, inputs, threads }.run().map_err(|reason| format!("{}: {reason}", node.name))?;
        if outputs.len() != node.output.len() {
            return Err(format!("{}: {} outputs", node.name, outputs.len()));
        }
        for (name, output) in node.output.iter().zip(outputs) {
            if let Some(info) = notes.get(name.as_str()) {
                agree(info, &output, &mut symbols)?;
            }
            values.insert(name, Arc::new(output));
        }
        let is_output = |name: &str| graph.output.iter().any(|info| info.name == name);
        for name in
            node.input.iter().filter(|name| last.get(name.as_str()) == Some(&index) && !is_output(name))
        {
            values.remove(name.as_str());
        }
    }
    let output = |info: &ValueInfoProto| {
        values
            .get(info.name.as_str())
            .map(|value| Tensor::clone(value))
            .ok_or(format!("`{}` is missing", info.name))
    };
    graph.output.iter().map(output).collect()
}

/// Whether a value is as the file describes it; sizes with a name must be the same everywhere.
fn agree<'a>(info: &'a ValueInfoProto, value: &Tensor, symbols: &mut HashMap<&'a str, usize>) -> Result<()> {
    let Some(type_proto::Value::TensorType(tensor)) =
        info.r#type.as_ref().and_then(|kind| kind.value.as_ref())
    else {
        return Err(format!("`{}` has no type", info.name));
    };
    let dims = tensor.shape.as_ref().map(|shape| shape.dim.as_slice()).unwrap_or_default();
    let fits = dims.len() == value.shape.len()
        && dims.iter().zip(&value.shape).all(|(dim, &size)| match &dim.value {
            None => true,
            Some(dimension::Value::DimValue(noted)) => usize::try_from(*noted) == Ok(size),
            Some(dimension::Value::DimParam(name)) => *symbols.entry(name.as_str()).or_insert(size) == size,
        });
    if fits {
        Ok(())
    } else {
        Err(format!("`{}` has the shape {:?}, the file says another", info.name, value.shape))
    }
}

/// A node with its inputs.
struct Call<'a> {
    node: &'a NodeProto,
    inputs: Vec<Option<Arc<Tensor>>>,
    threads: usize,
}

impl Call<'_> {
    fn run(&self) -> Result<Vec<Tensor>> {
        let x = self.input(0)?;
        let each = |f: &dyn Fn(f64) -> f64| x.map(f);
        let one = match self.node.op_type.as_str() {
            "Conv" => self.conv()?,
            "Gemm" => self.gemm()?,
            "MatMul" => self.matmul()?,
            "BatchNormalization" => self.batch_norm()?,
            "MaxPool" => self.max_pool()?,
            "AveragePool" => self.average_pool()?,
            "GlobalAveragePool" => x.global_mean()?,
            "Relu" => each(&|x| x.max(0.0))?,
            "LeakyRelu" => {
                let alpha = self.float("alpha", 0.01);
                each(&|x| if x < 0.0 { alpha * x } else { x })?
            }
            "Sigmoid" => each(&sigmoid)?,
            "HardSigmoid" => {
                let (alpha, beta) = (self.float("alpha", 0.2), self.float("beta", 0.5));
                each(&|x| (alpha * x + beta).clamp(0.0, 1.0))?
            }
            "HardSwish" => each(&|x| x * (x / 6.0 + 0.5).clamp(0.0, 1.0))?,
            "Clip" => {
                let low = self.bound(1, f64::NEG_INFINITY)?;
                let high = self.bound(2, f64::INFINITY)?;
                each(&|x| x.max(low).min(high))?
            }
            "Neg" => each(&|x| -x)?,
            "Exp" => each(&f64::exp)?,
            "Sqrt" => each(&f64::sqrt)?,
            "Reciprocal" => each(&f64::recip)?,
            "Identity" => Tensor::clone(x),
            "Add" => x.combine(self.input(1)?, |a, b| a + b)?,
            "Sub" => x.combine(self.input(1)?, |a, b| a - b)?,
            "Mul" => x.combine(self.input(1)?, |a, b| a * b)?,
            "Div" => x.combine(self.input(1)?, |a, b| a / b)?,
            "Softmax" => x.softmax(self.axis(-1, x.shape.len())?)?,
            "Reshape" => x.reshape(self.input(1)?.ints()?)?,
            "Flatten" => x.flatten(self.axis(1, x.shape.len() + 1)?)?,
            "Transpose" => x.transpose(&self.sizes("perm").ok_or("it has no perm")?)?,
            "Concat" => {
                let inputs = (0..self.inputs.len()).map(|i| self.input(i)).collect::<Result<Vec<_>>>()?;
                Tensor::concat(&inputs, self.axis(0, x.shape.len())?)?
            }
            "Slice" => {
                let [starts, ends, axes] = [1, 2, 3].map(|i| self.input(i).and_then(|input| input.ints()));
                match (starts?, ends?, axes?) {
                    (&[start], &[end], &[axis]) => x.slice(place(axis, x.shape.len())?, start, end)?,
                    _ => return Err("several axes at once".into()),
                }
            }
            "Split" => return x.split(self.axis(0, x.shape.len())?, self.input(1)?.ints()?),
            "Pad" => x.pad(self.input(1)?.ints()?, &self.text("mode", "constant"))?,
            "ReduceSum" => match self.input(1)?.ints()? {
                &[axis] => x.sum(place(axis, x.shape.len())?, self.int("keepdims", 1) != 0)?,
                axes => return Err(format!("a sum over {axes:?}")),
            },
            "SpaceToDepth" => x.space_to_depth(usize::try_from(self.int("blocksize", 0)).unwrap_or(0))?,
            other => return Err(format!("the operator `{other}` is none that is written here")),
        };
        Ok(vec![one])
    }

    fn input(&self, place: usize) -> Result<&Tensor> {
        self.inputs
            .get(place)
            .and_then(|input| input.as_deref())
            .ok_or_else(|| format!("it has no input {place}"))
    }

    /// A number that is an input, and `default` where it is left out.
    fn bound(&self, place: usize, default: f64) -> Result<f64> {
        match self.inputs.get(place).and_then(|input| input.as_deref()) {
            None => Ok(default),
            Some(bound) => {
                bound.floats()?.first().map(|&bound| f64::from(bound)).ok_or("an empty bound".into())
            }
        }
    }

    fn attribute(&self, name: &str) -> Option<&AttributeProto> {
        self.node.attribute.iter().find(|attribute| attribute.name == name)
    }

    fn int(&self, name: &str, default: i64) -> i64 {
        self.attribute(name).map_or(default, |attribute| attribute.i)
    }

    fn float(&self, name: &str, default: f32) -> f64 {
        f64::from(self.attribute(name).map_or(default, |attribute| attribute.f))
    }

    fn text(&self, name: &str, default: &str) -> String {
        self.attribute(name)
            .map_or(default.into(), |attribute| String::from_utf8_lossy(&attribute.s).into_owned())
    }

    /// A list of whole numbers, if it is there and none is negative.
    fn sizes(&self, name: &str) -> Option<Vec<usize>> {
        let ints = &self.attribute(name)?.ints;
        ints.iter().map(|&size| usize::try_from(size).ok()).collect()
    }

    /// The two numbers of an attribute of a window; ones where it is not there.
    fn pair(&self, name: &str) -> Result<[usize; 2]> {
        match self.attribute(name) {
            None => Ok([1; 2]),
            Some(_) => self
                .sizes(name)
                .and_then(|sizes| sizes.try_into().ok())
                .filter(|pair: &[usize; 2]| !pair.contains(&0))
                .ok_or_else(|| format!("its {name}")),
        }
    }

    /// The attribute `axis`, counted from the front.
    fn axis(&self, default: i64, count: usize) -> Result<usize> {
        place(self.int("axis", default), count)
    }
}

/// An axis of `rank`, where negative ones count from the end.
fn place(axis: i64, rank: usize) -> Result<usize> {
    let place = if axis < 0 { axis + rank as i64 } else { axis };
    usize::try_from(place)
        .ok()
        .filter(|&place| place < rank)
        .ok_or_else(|| format!("there is no axis {axis}"))
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}
