//! TPC-H and TPC-C through the engine. One binary, because each costs a link against all of DataFusion.

mod tpcc;
mod tpch;
