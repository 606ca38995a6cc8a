"""The commands as functions: one public function each, under the command's name."""
