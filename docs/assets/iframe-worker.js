// Browsers start no worker for a page that was opened from disk, so the search of such a page runs in a hidden frame.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super()
      const frame = document.createElement("iframe")
      frame.hidden = true
      document.body.append(frame)
      const inside = frame.contentWindow
      const script = inside.document.createElement("script")
      const waiting = []
      inside.postMessage = data => this.dispatchEvent(new MessageEvent("message", { data }))
      this.postMessage = data => waiting.push(data)
      script.src = url
      script.onload = () => {
        this.postMessage = data => inside.dispatchEvent(new inside.MessageEvent("message", { data }))
        waiting.forEach(this.postMessage)
      }
      inside.document.body.append(script)
    }
    terminate() {}
  }
}
