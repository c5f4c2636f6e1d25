
const gateway = "$gateway";
const show = (id, text) => { document.getElementById(id).textContent = text; };
const call = (path, options = {}) => fetch(gateway + path, { credentials: "include", ...options });

async function start() {
  const session = await (await call("/auth/session")).json();
  document.getElementById("sign-in").hidden = session.signed_in;
  document.getElementById("sign-out").hidden = !session.signed_in;
  show("who", session.signed_in ? "Signed in: " + (session.name || session.user) : "No user is signed in.");
  const list = document.getElementById("patients");
  list.replaceChildren();
  if (!session.signed_in) return;
  const answer = await call("/fhir/Patient", { headers: { Accept: "application/fhir+json" } });
  const bundle = await answer.json();
  for (const { resource } of bundle.entry ?? []) {
    if (resource.resourceType !== "Patient") continue;
    const name = (resource.name ?? [{}])[0];
    const item = document.createElement("li");
    item.textContent = [...(name.given ?? []), name.family ?? "", resource.birthDate ?? ""].join(" ");
    list.append(item);
  }
}

document.getElementById("sign-in").onclick = () => {
  location.href = gateway + "/auth/login?return_to=" + encodeURIComponent(location.href);
};
document.getElementById("sign-out").onclick = async () => {
  await call("/auth/logout", { method: "POST", headers: { "X-Requested-With": "example" } });
  await start();
};
start().catch(() => show("who", "The gateway does not answer."));
