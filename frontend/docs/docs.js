// @ts-nocheck: SwaggerUIBundle is a global of the bundled release file, which has no types.
window.SwaggerUIBundle({ url: "openapi.json", dom_id: "#reference", deepLinking: true });
