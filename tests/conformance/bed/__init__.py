"""What the suite needs of a machine: private namespaces, an agent, and processes started as a runtime starts them."""
