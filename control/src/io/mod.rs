//! The edges of the control plane: netlink, sockets, files, the HTTP API. They decide nothing.
