// What is wider than its place can be scrolled by the keyboard, too.
const fits = new ResizeObserver((entries) => {
  for (const { target } of entries) {
    if (target.scrollWidth > target.clientWidth) target.tabIndex = 0;
    else target.removeAttribute("tabindex");
  }
});

document.querySelectorAll("pre, .table-wrapper, .math, .diagram, .cell_output").forEach((wide) => fits.observe(wide));
