//! Where parameters, gradients and running statistics lie: one long vector each, so that an update is one pass.

use crate::EngineError;
use crate::autodiff::{Origin, Tape};
use crate::graph::{Graph, ValueId};
use std::collections::HashMap;
use std::ops::Range;

/// A parameter or running statistic of the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// Its name, as in timm.
    pub name: String,
    /// Its shape, as in PyTorch.
    pub shape: Vec<usize>,
    /// What becomes of it in training.
    pub role: Role,
    /// Its place in the vector of values, and in that of gradients.
    pub(super) range: Range<usize>,
}

/// What becomes of a parameter in training.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It is trained.
    Trained,
    /// It stays as it is.
    Frozen,
    /// It is a running mean or variance, which moves towards the batches'.
    Statistic,
    /// It is a running mean or variance that stays as it is.
    FrozenStatistic,
}

impl Parameter {
    /// Whether it is the weight of a norm or a bias: all vectors are, and nothing else.
    #[must_use]
    pub fn is_vector(&self) -> bool {
        self.shape.len() <= 1
    }
}

/// All parameters and running statistics, in the order of the graph's constants.
#[derive(Clone, Debug)]
pub(super) struct Parameters {
    pub(super) list: Vec<Parameter>,
    index: HashMap<ValueId, usize>,
    /// Trained weights of convolutions and linear layers.
    pub(super) matrices: Range<usize>,
    /// Trained weights of norms, and biases.
    pub(super) vectors: Range<usize>,
    /// Numbers with frozen parameters, which is as far as gradients go.
    pub(super) gradients: usize,
    /// Numbers with statistics.
    pub(super) values: usize,
}

/// Each parameter starts on a cache line.
const ALIGN: usize = 16;

impl Parameters {
    pub(super) fn new(graph: &Graph, tape: &Tape) -> Self {
        let mut list = Vec::new();
        let mut index = HashMap::new();
        let trained: Vec<_> = tape.parameters.iter().map(|parameter| parameter.value).collect();
        let moving: Vec<_> = tape.statistics.iter().flat_map(|statistics| statistics.running).collect();
        for (place, value) in tape.values.iter().enumerate() {
            let Origin::Parameter(constant) = value.origin else { continue };
            let statistic = value.name.ends_with(".running_mean") || value.name.ends_with(".running_var");
            let role = if trained.contains(&ValueId(place)) {
                Role::Trained
            } else if moving.contains(&constant) {
                Role::Statistic
            } else if statistic {
                Role::FrozenStatistic
            } else {
                Role::Frozen
            };
            index.insert(constant, list.len());
            let shape = graph.shape(constant).to_vec();
            list.push(Parameter { name: value.name.clone(), shape, role, range: 0..0 });
        }
        let mut parameters = Self { list, index, matrices: 0..0, vectors: 0..0, gradients: 0, values: 0 };
        parameters.lay_out();
        parameters
    }

    fn lay_out(&mut self) {
        let mut end = 0;
        let mut place = |list: &mut [Parameter], chosen: &dyn Fn(&Parameter) -> bool| {
            let start = end;
            for parameter in list.iter_mut().filter(|parameter| chosen(parameter)) {
                let count = parameter.shape.iter().product::<usize>();
                parameter.range = end..end + count;
                end += count.next_multiple_of(ALIGN);
            }
            start..end
        };
        let list = &mut self.list;
        self.matrices = place(list, &|p| p.role == Role::Trained && !p.is_vector());
        self.vectors = place(list, &|p| p.role == Role::Trained && p.is_vector());
        self.gradients = place(list, &|p| p.role == Role::Frozen).end;
        self.values = place(list, &|p| matches!(p.role, Role::Statistic | Role::FrozenStatistic)).end;
    }

    /// The parameter that is a constant of the graph.
    pub(super) fn of(&self, constant: ValueId) -> Option<&Parameter> {
        self.index.get(&constant).map(|&index| &self.list[index])
    }

    /// The place of a value of the tape that must be a parameter.
    pub(super) fn range(&self, tape: &Tape, id: ValueId, place: &str) -> Result<Range<usize>, EngineError> {
        let parameter = super::lower::parameter(tape, id).and_then(|constant| self.of(constant));
        parameter.map(|parameter| parameter.range.clone()).ok_or_else(|| {
            EngineError::graph(place, "a weight that is computed from others cannot be trained")
        })
    }
}
