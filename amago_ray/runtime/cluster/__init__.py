"""The cluster: joining it, its nodes, and which process finds room where."""
