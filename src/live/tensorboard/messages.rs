//! The protocol buffers of TensorFlow's `event.proto` and `summary.proto`, as far as they are written here:
//! fields keep their numbers there, so that what is left out is simply absent.

use prost::{Message, Oneof};

/// One thing that happened.
///
/// [`TensorBoard`](super::TensorBoard) has an example.
#[derive(Clone, PartialEq, Message)]
pub struct Event {
    /// Seconds since 1970.
    #[prost(double, tag = "1")]
    pub wall_time: f64,
    /// Where on the horizontal axis.
    #[prost(int64, tag = "2")]
    pub step: i64,
    /// What it is.
    #[prost(oneof = "What", tags = "3, 5, 7")]
    pub what: Option<What>,
}

/// What an event is.
///
/// [`TensorBoard`](super::TensorBoard) has an example.
#[derive(Clone, PartialEq, Oneof)]
pub enum What {
    /// Of the first event: `brain.Event:2`.
    #[prost(string, tag = "3")]
    FileVersion(String),
    /// Values.
    #[prost(message, tag = "5")]
    Summary(Summary),
    /// A run begins again.
    #[prost(message, tag = "7")]
    SessionLog(SessionLog),
}

/// Values of one step.
///
/// [`TensorBoard`](super::TensorBoard) has an example.
#[derive(Clone, PartialEq, Message)]
pub struct Summary {
    /// In any order.
    #[prost(message, repeated, tag = "1")]
    pub value: Vec<Value>,
}

/// A value, and what it is called.
///
/// [`TensorBoard`](super::TensorBoard) has an example.
#[derive(Clone, PartialEq, Message)]
pub struct Value {
    /// Its name; what is before a slash gathers charts.
    #[prost(string, tag = "1")]
    pub tag: String,
    /// The value itself.
    #[prost(oneof = "Data", tags = "2, 4, 5")]
    pub data: Option<Data>,
}

/// What a value is.
///
/// [`TensorBoard`](super::TensorBoard) has an example.
#[derive(Clone, PartialEq, Oneof)]
pub enum Data {
    /// `simple_value`
    #[prost(float, tag = "2")]
    Scalar(f32),
    /// `image`
    #[prost(message, tag = "4")]
    Image(PngImage),
    /// `histo`
    #[prost(message, tag = "5")]
    Histogram(Histogram),
}

/// `Summary.Image`
///
/// [`TensorBoard`](super::TensorBoard) has an example.
#[derive(Clone, PartialEq, Message)]
pub struct PngImage {
    /// Rows.
    #[prost(int32, tag = "1")]
    pub height: i32,
    /// Columns.
    #[prost(int32, tag = "2")]
    pub width: i32,
    /// Channels: [`PngImage::RGB`].
    #[prost(int32, tag = "3")]
    pub colorspace: i32,
    /// The file.
    #[prost(bytes = "vec", tag = "4")]
    pub encoded_image_string: Vec<u8>,
}

impl PngImage {
    /// Three channels.
    pub const RGB: i32 = 3;
}

/// `HistogramProto`
///
/// [`TensorBoard`](super::TensorBoard) has an example.
#[derive(Clone, PartialEq, Message)]
pub struct Histogram {
    /// The least value.
    #[prost(double, tag = "1")]
    pub min: f64,
    /// The greatest.
    #[prost(double, tag = "2")]
    pub max: f64,
    /// How many there are.
    #[prost(double, tag = "3")]
    pub num: f64,
    /// Σ x
    #[prost(double, tag = "4")]
    pub sum: f64,
    /// Σ x²
    #[prost(double, tag = "5")]
    pub sum_squares: f64,
    /// The upper end of each bucket.
    #[prost(double, repeated, tag = "6")]
    pub bucket_limit: Vec<f64>,
    /// How many values are in each.
    #[prost(double, repeated, tag = "7")]
    pub bucket: Vec<f64>,
}

/// `SessionLog`: from its step on, what was written before it no longer counts.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct SessionLog {
    /// [`SessionLog::START`].
    #[prost(int32, tag = "1")]
    pub status: i32,
}

impl SessionLog {
    /// A run begins, or goes on.
    pub const START: i32 = 1;
}
