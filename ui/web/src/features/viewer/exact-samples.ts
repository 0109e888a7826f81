/** Every value of a picture reaches the screen as it is, whatever the graphics card thinks enough. */

/**
 * Has pictures kept in textures of whole floats and read as such. Without this
 *
 * - samplers are lowp (GLSL ES 3.00 §4.5.4): drivers may read values as half floats, which end at 65,504
 *   and know no odd number above 2,048;
 * - vtk.js takes normalised textures of 16 bits for 65,536 and 32,767.5 steps, where they have 65,535 and
 *   32,767 (OpenGL ES 3.0 §2.1.6): values are off by up to one.
 *
 * Returns whether the graphics card can: else the processor has to draw.
 */
export function drawExactly(): boolean {
  const context = document.createElement('canvas').getContext('webgl2');
  if (!context?.getExtension('OES_texture_float_linear')) return false;
  context.getExtension('WEBGL_lose_context')?.loseContext();
  const { shaderSource } = WebGL2RenderingContext.prototype;
  const getExtension: (name: string) => unknown = WebGL2RenderingContext.prototype.getExtension;
  WebGL2RenderingContext.prototype.getExtension = function (name: string): never {
    return (name === 'EXT_texture_norm16' ? null : getExtension.call(this, name)) as never;
  };
  WebGL2RenderingContext.prototype.shaderSource = function (shader, source) {
    const exact = source.replace('precision highp float;', '$&\nprecision highp sampler2D;');
    shaderSource.call(this, shader, exact);
  };
  return true;
}
