//! The compiled step against the tape's reference: gradients and running statistics, on the blocks of the networks and on
//! random graphs.

use crate::check::{Network, everything};
use crate::graphs::Builder;
use cardinal_engine::autodiff::Recompute;
use cardinal_engine::train::{Role, TrainOptions, TrainPlan, TrainSession, Vector};
use cardinal_engine::{DType, EngineError, Isa};

/// Gradients of everything trained, in the order of the tape's parameters.
type Flat = Vec<f64>;

fn session(
    network: &Network,
    recompute: Recompute,
    trained: &dyn Fn(&str) -> bool,
    dtype: DType,
    threads: usize,
) -> Result<TrainSession, EngineError> {
    let batch = network.inputs[0].len() / network.graph[network.graph.inputs[0]].elements();
    let options = TrainOptions { batch, dtype, threads, isa: Isa::best(), recompute, trained };
    TrainPlan::new(&network.graph, &options).map(|plan| TrainSession::new(plan, false))
}

/// Forward and backward with the network's inputs and loss.
fn step(session: &mut TrainSession, network: &Network) -> Flat {
    let floats = |lists: &[Vec<f64>]| -> Vec<Vec<f32>> {
        lists.iter().map(|list| list.iter().map(|&x| x as f32).collect()).collect()
    };
    let (inputs, loss) = (floats(&network.inputs), floats(&network.loss));
    let views: Vec<_> = inputs.iter().map(Vec::as_slice).collect();
    session.forward(&views, network.seed).unwrap();
    let views: Vec<_> = loss.iter().map(Vec::as_slice).collect();
    session.backward(&views).unwrap();
    gradients(session)
}

fn gradients(session: &TrainSession) -> Flat {
    let trained = |(index, parameter): (usize, &cardinal_engine::train::Parameter)| {
        (parameter.role == Role::Trained).then_some(index)
    };
    let indices: Vec<_> = session.parameters().iter().enumerate().filter_map(trained).collect();
    indices
        .into_iter()
        .flat_map(|index| session.get(Vector::Gradients, index).iter().map(|&x| f64::from(x)))
        .collect()
}

fn expected(network: &Network, trained: &dyn Fn(&str) -> bool) -> Flat {
    let tape = network.tape(Recompute::None, trained).unwrap();
    let zeros = |place: usize| vec![0.0; tape.values[tape.parameters[place].value.0].elements()];
    let list = network.gradients(&tape).into_iter().enumerate();
    list.flat_map(|(place, (_, gradient))| gradient.unwrap_or_else(|| zeros(place))).collect()
}

fn relative(found: &[f64], expected: &[f64]) -> f64 {
    let norm = |list: &mut dyn Iterator<Item = f64>| list.map(|x| x * x).sum::<f64>().sqrt();
    let difference = norm(&mut found.iter().zip(expected).map(|(a, b)| a - b));
    difference / norm(&mut expected.iter().copied()).max(1e-12)
}

/// Compares the compiled step with the reference; none if the runtime refuses the graph.
#[track_caller]
pub(crate) fn compare(network: &Network, trained: &dyn Fn(&str) -> bool) -> Option<f64> {
    let truth = expected(network, trained);
    let mut worst = 0.0_f64;
    let mut bound = None;
    for recompute in Recompute::ALL {
        let mut one = session(network, recompute, trained, DType::F32, 2).ok()?;
        let found = step(&mut one, network);
        let error = relative(&found, &truth);
        if error > 1e-4 || error.is_nan() {
            // A sharp network moves by itself when its inputs are rounded.
            let own = *bound.get_or_insert_with(|| {
                let mut moved = Network::new(network.graph.clone(), 2);
                moved.inputs = network
                    .inputs
                    .iter()
                    .map(|list| list.iter().map(|x| x * (1.0 + 1e-6)).collect())
                    .collect();
                moved.loss.clone_from(&network.loss);
                moved.seed = network.seed;
                relative(&expected(&moved, trained), &truth)
            });
            assert!(
                error <= 3.0 * own,
                "{recompute:?}: off by {error:e}, where rounding moves by {own:e}\n{}",
                network.tape(recompute, trained).unwrap()
            );
        }
        worst = worst.max(error);
        // Twice the same, and the same however many threads there are.
        assert_eq!(step(&mut one, network), found);
        let mut alone = session(network, recompute, trained, DType::F32, 1).unwrap();
        let error = relative(&step(&mut alone, network), &found);
        assert!(error <= 1e-5 || bound.is_some(), "{recompute:?}: one thread differs by {error:e}");
    }
    Some(worst)
}

#[test]
fn random_graphs() {
    let mut compared = 0;
    for seed in 0..150 {
        let network = Network::new(Builder::build(seed), 2 + (seed % 2) as usize);
        if network.tape(Recompute::None, &everything).is_err() {
            continue;
        }
        let truth = expected(&network, &everything);
        if truth.iter().all(|x| x.abs() < 1e6) && truth.iter().any(|x| x.abs() > 1e-6) {
            compared += usize::from(compare(&network, &everything).is_some());
        }
    }
    assert!(compared >= 50, "only {compared} graphs were compiled");
}

#[test]
fn bf16_follows_f32() {
    let (mut compared, mut agree) = (0, 0);
    for seed in 0..60 {
        let network = Network::new(Builder::build(seed), 2);
        let pair =
            [DType::F32, DType::Bf16].map(|dtype| session(&network, Recompute::Cheap, &everything, dtype, 2));
        let [Ok(mut single), Ok(mut half)] = pair else { continue };
        let (single, half) = (step(&mut single, &network), step(&mut half, &network));
        if single.iter().any(|x| x.abs() > 1e-3) && single.iter().all(|x| x.abs() < 1e4) {
            compared += 1;
            agree += usize::from(relative(&half, &single) < 0.1);
        }
    }
    // Where a rounded number crosses a kink, the slope is another one.
    assert!(compared >= 15 && 4 * agree >= 3 * compared, "{agree} of {compared} graphs agree");
}

#[test]
fn less_memory_where_more_is_computed_again_or_in_place() {
    let norms = |slope: &str| {
        let layer = |i: usize| {
            format!(
                "const @{i}.w [8, 8, 3, 3]\n%c{i} = conv2d(%m{i}, @{i}.w) padding=1\nconst @{i}.weight [8]\n\
                 const @{i}.bias [8]\nconst @{i}.running_mean [8]\nconst @{i}.running_var [8]\n%m{} = activated_norm(%c{i}, \
                 @{i}.weight, @{i}.bias, @{i}.running_mean, @{i}.running_var) slope={slope}\n",
                i + 1
            )
        };
        let layers: String = (0..10).map(layer).collect();
        format!("graph chain\ninput %m0 [1, 8, 32, 32]\n{layers}output %m10\n")
    };
    let bytes = |slope: &str, recompute| {
        let network = Network::new(cardinal_engine::graph::Graph::parse(&norms(slope)).unwrap(), 4);
        session(&network, recompute, &everything, DType::F32, 2).unwrap().plan().arena_bytes()
    };
    // Inputs and outputs of norms, or one of each pair.
    for slope in ["0", "0.01"] {
        let (all, few) = (bytes(slope, Recompute::None), bytes(slope, Recompute::Cheap));
        assert!(4 * few < 3 * all, "slope {slope}: {few} of {all} bytes");
    }
}
