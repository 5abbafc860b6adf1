/* The API's document, drawn by Swagger UI where the browser can fetch that. */

if (globalThis.SwaggerUIBundle) {
  SwaggerUIBundle({
    url: new URL("../openapi.json", import.meta.url).href,
    dom_id: "#swagger-ui",
    deepLinking: true,
    presets: [SwaggerUIBundle.presets.apis],
  });
}
