"`python -m geminiq` is the command `geminiq`."
from geminiq.cli import app

app(prog_name="geminiq")
