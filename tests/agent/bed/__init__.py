"""A node in private namespaces with an agent as a process, and a runtime that calls the real client."""
