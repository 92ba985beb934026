//! Numbers in a shape, and what needs no window.

use super::Result;
use crate::onnx::proto::TensorProto;
use crate::onnx::proto::tensor_proto::DataType;

/// A tensor of a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// Sizes.
    pub shape: Vec<usize>,
    data: Data,
}

#[derive(Clone, Debug, PartialEq)]
enum Data {
    Floats(Vec<f32>),
    Ints(Vec<i64>),
}

impl Tensor {
    /// Floats in `shape`, row-major.
    ///
    /// # Errors
    ///
    /// `data` has another number of elements.
    pub fn new(shape: impl Into<Vec<usize>>, data: Vec<f32>) -> Result<Self> {
        let shape = shape.into();
        let count = shape.iter().try_fold(1_usize, |product, &size| product.checked_mul(size));
        if count != Some(data.len()) {
            return Err(format!("{} numbers for the shape {shape:?}", data.len()));
        }
        Ok(Self { shape, data: Data::Floats(data) })
    }

    /// The floats.
    ///
    /// # Errors
    ///
    /// They are whole numbers.
    pub fn floats(&self) -> Result<&[f32]> {
        match &self.data {
            Data::Floats(floats) => Ok(floats),
            Data::Ints(_) => Err("whole numbers where floats belong".into()),
        }
    }

    pub(super) fn ints(&self) -> Result<&[i64]> {
        match &self.data {
            Data::Ints(ints) => Ok(ints),
            Data::Floats(_) => Err("floats where whole numbers belong".into()),
        }
    }

    pub(super) fn decode(tensor: &TensorProto) -> Result<Self> {
        let shape: Option<Vec<usize>> = tensor.dims.iter().map(|&size| usize::try_from(size).ok()).collect();
        let shape = shape.ok_or_else(|| format!("{}: the shape {:?}", tensor.name, tensor.dims))?;
        let data = if tensor.data_type == DataType::Int64 as i32 {
            Data::Ints(tensor.raw_data.as_chunks().0.iter().map(|bytes| i64::from_le_bytes(*bytes)).collect())
        } else {
            Data::Floats(
                tensor.raw_data.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect(),
            )
        };
        Ok(Self { shape, data })
    }

    /// Four sizes.
    pub(super) fn map_shape(&self) -> Result<[usize; 4]> {
        self.shape.as_slice().try_into().map_err(|_| format!("{:?} is no map", self.shape))
    }

    /// How many numbers lie between neighbours on `axis`.
    fn step(&self, axis: usize) -> usize {
        self.shape[axis + 1..].iter().product()
    }

    pub(super) fn map(&self, f: &dyn Fn(f64) -> f64) -> Result<Self> {
        Self::new(self.shape.clone(), self.floats()?.iter().map(|&x| f(f64::from(x)) as f32).collect())
    }

    /// `f` of two tensors, either of which is repeated where its size is 1 or it has no such axis.
    pub(super) fn combine(&self, other: &Self, f: impl Fn(f64, f64) -> f64) -> Result<Self> {
        let rank = self.shape.len().max(other.shape.len());
        let full = |tensor: &Self| [vec![1; rank - tensor.shape.len()], tensor.shape.clone()].concat();
        let (a, b) = (full(self), full(other));
        let size = |(&a, &b): (&usize, &usize)| match (a, b) {
            (1, size) | (size, 1) => Some(size),
            (a, b) => (a == b).then_some(a),
        };
        let shape: Option<Vec<_>> = a.iter().zip(&b).map(size).collect();
        let shape = shape.ok_or_else(|| format!("{a:?} and {b:?} do not fit"))?;
        let (x, y) = (self.floats()?, other.floats()?);
        let (steps, others) = (strides(&a), strides(&b));
        let mut data = Vec::with_capacity(shape.iter().product());
        visit(&shape, &mut |index| {
            let at = |steps: &[usize]| index.iter().zip(steps).map(|(i, step)| i * step).sum::<usize>();
            data.push(f(f64::from(x[at(&steps)]), f64::from(y[at(&others)])) as f32);
        });
        Self::new(shape, data)
    }

    pub(super) fn softmax(&self, axis: usize) -> Result<Self> {
        let mut data = self.floats()?.to_vec();
        let (count, step) = (self.shape[axis], self.step(axis));
        for start in (0..data.len()).filter(|i| i / step % count == 0) {
            let places = || (0..count).map(|i| start + i * step);
            let max = places().map(|i| data[i]).fold(f32::NEG_INFINITY, f32::max);
            let sum: f64 = places().map(|i| f64::from(data[i] - max).exp()).sum();
            places().for_each(|i| data[i] = (f64::from(data[i] - max).exp() / sum) as f32);
        }
        Self::new(self.shape.clone(), data)
    }

    /// 0 keeps the size on that axis, -1 is what is left.
    pub(super) fn reshape(&self, sizes: &[i64]) -> Result<Self> {
        let wrong = || format!("{:?} does not become {sizes:?}", self.shape);
        let kept = |(axis, &size): (usize, &i64)| match size {
            0 => self.shape.get(axis).copied(),
            -1 => Some(1),
            size => usize::try_from(size).ok(),
        };
        let shape: Option<Vec<usize>> = sizes.iter().enumerate().map(kept).collect();
        let mut shape = shape.ok_or_else(wrong)?;
        let count: usize = self.shape.iter().product();
        if let Some(axis) = sizes.iter().position(|&size| size == -1) {
            shape[axis] = count / shape.iter().product::<usize>().max(1);
        }
        if shape.iter().product::<usize>() != count {
            return Err(wrong());
        }
        Ok(Self { shape, data: self.data.clone() })
    }

    pub(super) fn flatten(&self, axis: usize) -> Result<Self> {
        let (rows, columns) = self.shape.split_at(axis);
        Ok(Self { shape: vec![rows.iter().product(), columns.iter().product()], data: self.data.clone() })
    }

    pub(super) fn transpose(&self, order: &[usize]) -> Result<Self> {
        let mut sorted = order.to_vec();
        sorted.sort_unstable();
        if !sorted.iter().copied().eq(0..self.shape.len()) {
            return Err(format!("{order:?} is no order of the axes of {:?}", self.shape));
        }
        let x = self.floats()?;
        let shape: Vec<_> = order.iter().map(|&axis| self.shape[axis]).collect();
        let steps: Vec<_> = order.iter().map(|&axis| self.step(axis)).collect();
        let mut data = Vec::with_capacity(x.len());
        visit(&shape, &mut |index| {
            data.push(x[index.iter().zip(&steps).map(|(i, step)| i * step).sum::<usize>()]);
        });
        Self::new(shape, data)
    }

    pub(super) fn concat(inputs: &[&Self], axis: usize) -> Result<Self> {
        let mut shape = inputs[0].shape.clone();
        let fits = |input: &&&Self| {
            input.shape.len() == shape.len()
                && (0..shape.len()).all(|i| i == axis || input.shape[i] == shape[i])
        };
        if let Some(other) = inputs.iter().find(|input| !fits(input)) {
            return Err(format!("{:?} beside {shape:?}", other.shape));
        }
        shape[axis] = inputs.iter().map(|input| input.shape[axis]).sum();
        let rows: usize = shape[..axis].iter().product();
        let mut data = Vec::new();
        for row in 0..rows {
            for input in inputs {
                let size = input.shape[axis] * input.step(axis);
                data.extend_from_slice(&input.floats()?[row * size..][..size]);
            }
        }
        Self::new(shape, data)
    }

    pub(super) fn slice(&self, axis: usize, start: i64, end: i64) -> Result<Self> {
        let wrong = || format!("there is no {start}..{end} of {}", self.shape[axis]);
        let start = usize::try_from(start).map_err(|_| wrong())?;
        let end = usize::try_from(end)
            .ok()
            .filter(|&end| start < end && end <= self.shape[axis])
            .ok_or_else(wrong)?;
        let (size, step) = (self.shape[axis] * self.step(axis), self.step(axis));
        let rows = self.floats()?.chunks_exact(size);
        let data = rows.flat_map(|row| &row[start * step..end * step]).copied().collect();
        let mut shape = self.shape.clone();
        shape[axis] = end - start;
        Self::new(shape, data)
    }

    pub(super) fn split(&self, axis: usize, sizes: &[i64]) -> Result<Vec<Self>> {
        if sizes.iter().sum::<i64>() != self.shape[axis] as i64 {
            return Err(format!("{} in parts of {sizes:?}", self.shape[axis]));
        }
        let mut end = 0;
        let mut part = |&size: &i64| {
            let start = end;
            end += size;
            self.slice(axis, start, end)
        };
        sizes.iter().map(&mut part).collect()
    }

    pub(super) fn sum(&self, axis: usize, keeps: bool) -> Result<Self> {
        let x = self.floats()?;
        let (count, step) = (self.shape[axis], self.step(axis));
        let starts = (0..x.len()).filter(|i| i / step % count == 0);
        let sum = |start: usize| (0..count).map(|i| f64::from(x[start + i * step])).sum::<f64>() as f32;
        let mut shape = self.shape.clone();
        if keeps {
            shape[axis] = 1;
        } else {
            shape.remove(axis);
        }
        Self::new(shape, starts.map(sum).collect())
    }
}

/// How far the numbers of neighbours lie apart on each axis; 0 where the size is 1.
fn strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![0; shape.len()];
    let mut step = 1;
    for axis in (0..shape.len()).rev() {
        strides[axis] = if shape[axis] == 1 { 0 } else { step };
        step *= shape[axis];
    }
    strides
}

/// Calls `f` with every index of `shape`, the last axis fastest.
fn visit(shape: &[usize], f: &mut impl FnMut(&[usize])) {
    let mut index = vec![0; shape.len()];
    for _ in 0..shape.iter().product::<usize>() {
        f(&index);
        for axis in (0..shape.len()).rev() {
            index[axis] += 1;
            if index[axis] < shape[axis] {
                break;
            }
            index[axis] = 0;
        }
    }
}
