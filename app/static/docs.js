/** Swagger is dark if the system is. */

const system = matchMedia("(prefers-color-scheme: dark)");

function follow() {
  document.documentElement.classList.toggle("dark-mode", system.matches);
}

system.addEventListener("change", follow);
follow();
