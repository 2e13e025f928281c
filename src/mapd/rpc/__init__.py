"""gRPC: convert, authorise, call the runtime, convert back. The only package here that imports grpc."""
