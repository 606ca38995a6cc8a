"""What the commands do: one public function each, under the command's name."""
