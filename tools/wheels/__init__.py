"""``make wheels``: build sprat's wheels by a cross compiler, check them, and run ``sprat demo`` from each."""
