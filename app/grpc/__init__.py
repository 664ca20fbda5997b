"""The Open Inference Protocol over gRPC (docs/decisions/0029-grpc.md)."""
