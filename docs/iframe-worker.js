// The search runs in a Worker, which browsers refuse to a page that is opened from a folder. There an invisible frame runs it instead.
if (location.protocol === "file:") {
  window.IFrameWorker = class extends EventTarget {
    constructor(url) {
      super()
      this.frame = document.createElement("iframe")
      this.frame.hidden = true
      this.frame.answer = data => this.dispatchEvent(new MessageEvent("message", { data }))
      this.frame.srcdoc = `<body><script>
        window.postMessage = frameElement.answer
        window.importScripts = async (...urls) => {
          for (const src of urls)
            await new Promise((onload, onerror) =>
              document.body.append(Object.assign(document.createElement("script"), { src, onload, onerror })))
        }
      </script><script src="${url}"></script>`
      this.loaded = new Promise(done => { this.frame.onload = done })
      document.body.append(this.frame)
    }

    postMessage(data) {
      this.loaded.then(() => this.frame.contentWindow.dispatchEvent(new MessageEvent("message", { data })))
    }
  }
  window.Worker = window.IFrameWorker
}
