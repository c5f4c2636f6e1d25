  const two = (number) => String(number).padStart(2, "0");
  const localise = (part) => {
    for (const each of part.querySelectorAll("time")) {
      const at = new Date(each.dateTime);
      const day = [at.getFullYear(), two(at.getMonth() + 1), two(at.getDate())].join("-");
      const clock = [at.getHours(), at.getMinutes(), at.getSeconds()].map(two);
      each.title = each.dateTime;
      const short = "short" in each.dataset;
      if (short) clock.pop();
      const today = at.toDateString() === new Date().toDateString();
      each.textContent = (today || short ? "" : day + " ") + clock.join(":");
    }
  };
